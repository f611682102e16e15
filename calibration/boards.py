"""Calibration boards: what they look like on paper, and where their corners are in an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.errors import ConfigError

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
Kind = Literal["charuco", "chessboard", "grid"]

LEAST_CORNERS = 6  # fewer do not fix a pose well
# Half the window in which a corner is refined, px. OpenCV's samples take 11; where squares are small in the image, a
# window so large takes in what surrounds the corner and moves it by a pixel.
WIDEST_WINDOW = 11
WINDOW_SHARE = 0.35
NARROWEST_WINDOW = 3
_SUBPIX = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 100, 1e-4)
MM_PER_INCH = 25.4
DPI = 600


@dataclass(frozen=True)
class Detection:
    """Corners of a board in one image.

    Attributes:
        name: Of the image.
        pixels: [N, 2], where the corners are.
        points: [N, 3] m, in the board's frame: x along columns, y along rows, z into the board.
    """

    name: str
    pixels: Array
    points: Array


@dataclass(frozen=True)
class Board:
    """A flat board.

    Attributes:
        kind: ``charuco`` (chessboard with markers in its white squares), ``chessboard``, or ``grid`` of markers (ArUco
            or AprilTag).
        columns, rows: Inner corners of a chessboard; squares of a charuco board; markers of a grid.
        square: Side of a square of a chessboard or charuco board, or of a grid's marker, m.
        marker: Side of a charuco board's marker, or gap between a grid's markers, m.
        dictionary: Of the markers, OpenCV's name without ``DICT_``: ``5X5_250``, ``APRILTAG_36h11``.
        legacy: A charuco board as OpenCV before 4.6 (and MoveIt) has it: its first square is white where rows are
            even, and its frame has its origin in the lower left corner, y upwards and z towards the viewer.
    """

    kind: Kind
    columns: int
    rows: int
    square: float
    marker: float = 0.0
    dictionary: str = "5X5_250"
    legacy: bool = False

    def __post_init__(self) -> None:
        """Check that such a board can exist.

        Raises:
            ConfigError: It cannot.
        """
        if self.columns < 2 or self.rows < 2 or not self.square > 0:
            raise ConfigError("a board has at least 2 columns and 2 rows, and squares larger than nothing")
        if self.kind == "charuco" and not 0 < self.marker < self.square:
            raise ConfigError(
                f"a charuco board's markers ({self.marker:g} m) are smaller than its squares ({self.square:g} m)"
            )
        if self.kind == "grid" and not self.marker > 0:
            raise ConfigError("a grid needs a gap between its markers; give it as the marker size")
        if self.kind != "chessboard":
            _ = self._dictionary

    @cached_property
    def _dictionary(self) -> Any:
        number = getattr(cv2.aruco, f"DICT_{self.dictionary}", None)
        if number is None:
            names = sorted(name[5:] for name in dir(cv2.aruco) if name.startswith("DICT_"))
            raise ConfigError(f"unknown marker dictionary '{self.dictionary}'; known: {', '.join(names)}")
        return cv2.aruco.getPredefinedDictionary(number)

    @cached_property
    def _markers(self) -> Any:
        size = (self.columns, self.rows)
        if self.kind == "grid":
            return cv2.aruco.GridBoard(size, self.square, self.marker, self._dictionary)
        board = cv2.aruco.CharucoBoard(size, self.square, self.marker, self._dictionary)
        board.setLegacyPattern(self.legacy)
        return board

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the pattern, m."""
        if self.kind == "chessboard":
            return (self.columns + 1) * self.square, (self.rows + 1) * self.square
        if self.kind == "charuco":
            return self.columns * self.square, self.rows * self.square
        pitch = self.square + self.marker
        return self.columns * pitch - self.marker, self.rows * pitch - self.marker

    def detect(self, image: Image, name: str = "", window: int | None = None) -> Detection | None:
        """Find the corners in an image [H, W] or [H, W, 3]; None where too little of the board is seen.

        Args:
            image: 8 bits a channel.
            name: Of the image, kept with the detection.
            window: Half the window in which a chessboard's corners are refined, px; by their distance where left out.
        """
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
        if self.kind == "chessboard":
            return self._chessboard(grey, name, window)
        if self.kind == "charuco":
            corners, ids, _, _ = cv2.aruco.CharucoDetector(self._markers).detectBoard(grey)
            if ids is None or len(ids) < LEAST_CORNERS:
                return None
            points = np.asarray(self._markers.getChessboardCorners(), dtype=np.float64)[ids.ravel()]
            if self.legacy:
                points[:, 1] = self.size[1] - points[:, 1]
            return Detection(name, np.asarray(corners, dtype=np.float64).reshape(-1, 2), points)
        settings = cv2.aruco.DetectorParameters()
        settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        found, numbers, _ = cv2.aruco.ArucoDetector(self._dictionary, settings).detectMarkers(grey)
        if numbers is None:
            return None
        points, pixels = self._markers.matchImagePoints(found, numbers)
        if points is None or len(points) < LEAST_CORNERS:
            return None
        return Detection(name, *(np.asarray(a, dtype=np.float64).reshape(len(points), -1) for a in (pixels, points)))

    def _chessboard(self, grey: Image, name: str, window: int | None) -> Detection | None:
        size = (self.columns, self.rows)
        flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE
        found, corners = cv2.findChessboardCorners(grey, size, flags=flags)
        if not found:
            found, corners = cv2.findChessboardCornersSB(grey, size, flags=cv2.CALIB_CB_EXHAUSTIVE)
        if not found:
            return None
        if window is None:
            grid = corners.reshape(self.rows, self.columns, 2)
            nearest = min(np.linalg.norm(np.diff(grid, axis=axis), axis=2).min() for axis in (0, 1))
            window = int(np.clip(WINDOW_SHARE * nearest, NARROWEST_WINDOW, WIDEST_WINDOW))
        corners = cv2.cornerSubPix(grey, corners, (window, window), (-1, -1), _SUBPIX)
        points = np.zeros((self.columns * self.rows, 3))
        points[:, :2] = self.square * np.mgrid[0 : self.columns, 0 : self.rows].T.reshape(-1, 2)
        return Detection(name, np.asarray(corners, dtype=np.float64).reshape(-1, 2), points)

    def draw(self, pixels_per_m: float, margin: float = 0.0) -> Image:
        """The board as a grey image [H, W], with a white margin (m) around it."""
        width, height = (round(side * pixels_per_m) for side in self.size)
        if self.kind == "chessboard":
            square = np.indices((self.rows + 1, self.columns + 1)).sum(axis=0) % 2
            pattern = np.asarray(255 * square, dtype=np.uint8)
            pattern = cv2.resize(pattern, (width, height), interpolation=cv2.INTER_NEAREST)
        else:
            pattern = self._markers.generateImage((width, height), marginSize=0)
        edge = round(margin * pixels_per_m)
        return np.asarray(cv2.copyMakeBorder(pattern, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=255))

    def print_to(self, path: Path, margin: float = 0.01) -> None:
        """Write a PDF or PNG of the board's exact size, to be printed at 100 %.

        Raises:
            ConfigError: The file's name ends in neither ``.pdf`` nor ``.png``.
        """
        from PIL import Image as Picture  # noqa: PLC0415 (only printing needs it)

        if path.suffix.lower() not in (".pdf", ".png"):
            raise ConfigError(f"{path} is neither a .pdf nor a .png")
        sheet = Picture.fromarray(self.draw(1000.0 * DPI / MM_PER_INCH, margin)).convert("1")
        temporary = path.with_name(f"{path.stem}.tmp{path.suffix}")
        sheet.save(temporary, resolution=DPI, dpi=(DPI, DPI))
        temporary.replace(path)
