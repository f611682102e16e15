"""Calibration boards: what they look like on paper, and where their corners are in an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from sim2real.errors import ConfigError
from sim2real.types import Array, Image

Kind = Literal["charuco", "chessboard", "grid"]

LEAST_CORNERS = 6  # fewer do not fix a pose well; all of a board that has no more do
LEAST_SIDE = 3  # columns and rows of a chessboard or charuco board
LINE_FRACTION = 0.1  # of a square: corners no further from one line fix no pose
# Half the window in which a corner is refined, px. OpenCV's samples take 11; where squares are small in the image, a
# window so large takes in what surrounds the corner and moves it by a pixel.
WIDEST_WINDOW = 11
WINDOW_SHARE = 0.35
NARROWEST_WINDOW = 3
STEPS = 100  # of the refinement of a corner, at most; it ends when a step moves the corner by less than
STOP_PX = 1e-4
# OpenCV's calibration sample refines in 30 steps that end at 0.1 px. Its window of 11 takes in what surrounds the
# smallest board of its own photographs and moves the result by up to 1 px in one view; 10 does not so much.
SAMPLE_WINDOW, SAMPLE_STOP_PX = 10, 0.1
GLANCE_PX = 1000  # a larger board is looked for at this size: where there is none, a large image takes many seconds
LARGEST_SQUARE_M = 1.0
LEAST_PRINT_PX = 10  # a marker or square, or the gap between markers
LARGEST_PRINT_PX = 30_000  # a side; 1.27 m at 600 dots an inch, more than A0
MM_PER_INCH = 25.4
DPI = 600
PEEK_PX = 640  # a dark and noisy image takes OpenCV's first detector ten seconds; made so small, it takes a glance
_CHESSBOARD = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE


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


def bend_px(detection: Detection) -> float:
    """Distance of the corners from those of a flat board seen without a lens (rms), px.

    A lens bends by a few pixels; corners that were taken for others, by tens.
    """
    plane = np.ascontiguousarray(detection.points[:, :2])
    found = cv2.findHomography(plane, detection.pixels)[0]
    if found is None:
        return float("inf")
    off = cv2.perspectiveTransform(plane[None], found)[0] - detection.pixels
    return float(np.sqrt((off**2).sum(axis=1).mean()))


def on_one_line(detection: Detection, square: float) -> bool:
    """True for corners that lie on one line, and fix no pose."""
    plane = detection.points[:, :2] - detection.points[:, :2].mean(axis=0)
    return bool(np.linalg.svd(plane, compute_uv=False)[-1] < LINE_FRACTION * square)


def shows_aprilgrid(image: Image) -> bool:
    """True for markers of Kalibr's aprilgrid, whose black border is two bits wide."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    counts = []
    for border in (1, 2):
        settings = cv2.aruco.DetectorParameters()
        settings.markerBorderBits = border
        dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11)
        ids = cv2.aruco.ArucoDetector(dictionary, settings).detectMarkers(grey)[1]
        counts.append(0 if ids is None else len(ids))
    return counts[1] > max(counts[0], 3)


def dictionary_seen(image: Image) -> tuple[str, int]:
    """Name of the marker dictionary of which an image shows the most markers, and how many; ("", 0) without any."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    best, least, most = "", 0, 0
    for name in dir(cv2.aruco):
        if not name.startswith("DICT_"):
            continue
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))
        ids = cv2.aruco.ArucoDetector(dictionary).detectMarkers(grey)[1]
        count, size = 0 if ids is None else len(ids), len(dictionary.bytesList)
        if count > most or (count == most > 0 and size < least):  # small dictionaries are the beginnings of large ones
            best, least, most = name[5:], size, count
    return best, most


@dataclass(frozen=True)
class Board:
    """A flat board.

    Attributes:
        kind: ``charuco`` (chessboard with markers in its white squares), ``chessboard``, or ``grid`` of markers (ArUco
            or AprilTag).
        columns, rows: Inner corners of a chessboard; squares of a charuco board; markers of a grid.
        square: Side of a square of a chessboard or charuco board, or of a grid's marker, m.
        marker: Side of a charuco board's marker, or gap between a grid's markers, m.
        dictionary: Of the markers, OpenCV's name with or without ``DICT_``: ``5X5_250``, ``APRILTAG_36h11``.
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
        if self.columns < 1 or self.rows < 1 or not self.square > 0:
            raise ConfigError("a board has at least one column and one row, and squares larger than nothing")
        if self.kind != "grid" and min(self.columns, self.rows) < LEAST_SIDE:
            what = "inner corners" if self.kind == "chessboard" else "squares"
            raise ConfigError(
                f"a {self.kind} of {self.columns} x {self.rows} {what} fixes no pose: its corners lie on one "
                f"line. It needs {LEAST_SIDE} x {LEAST_SIDE}; of a grid one row, or one marker, is enough"
            )
        if self.square > LARGEST_SQUARE_M:
            raise ConfigError(f"squares of {self.square:g} m? Lengths are in metres: 25 mm are 0.025")
        if self.kind == "charuco" and not 0 < self.marker < self.square:
            raise ConfigError(
                f"a charuco board's markers ({self.marker:g} m) are smaller than its squares ({self.square:g} m)"
            )
        if self.kind == "grid" and not 0 < self.marker <= LARGEST_SQUARE_M:
            raise ConfigError("a grid needs the gap between its markers, measured on the print, m")
        if self.kind != "chessboard":
            has = len(self._dictionary.bytesList)
            if self.markers > has:
                raise ConfigError(
                    f"a {self.kind} of {self.columns} x {self.rows} has {self.markers} markers, the dictionary "
                    f"'{self.dictionary}' only {has}; take a larger dictionary or fewer columns and rows"
                )

    @property
    def corners(self) -> int:
        """Number of corners that can be found."""
        if self.kind == "grid":
            return 4 * self.markers
        less = 0 if self.kind == "chessboard" else 1
        return (self.columns - less) * (self.rows - less)

    @property
    def markers(self) -> int:
        """Number of markers on the board."""
        if self.kind == "chessboard":
            return 0
        return self.columns * self.rows // (1 if self.kind == "grid" else 2)

    @cached_property
    def _dictionary(self) -> Any:
        number = getattr(cv2.aruco, f"DICT_{self.dictionary.removeprefix('DICT_')}", None)
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

    def detect(
        self, image: Image, name: str = "", window: int | None = None, stop_px: float = STOP_PX
    ) -> Detection | None:
        """Find the corners in an image [H, W] or [H, W, 3]; None where too little of the board is seen.

        Args:
            image: 8 bits a channel.
            name: Of the image, kept with the detection.
            window: Half the window in which a chessboard's corners are refined, px; by their distance where left out.
            stop_px: The refinement of a chessboard's corner ends when a step moves it by less, px.
        """
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
        if self.kind == "chessboard":
            return self._chessboard(grey, name, window, stop_px)
        if self.kind == "charuco":
            corners, ids, _, _ = cv2.aruco.CharucoDetector(self._markers).detectBoard(grey)
            if ids is None or len(ids) < min(LEAST_CORNERS, self.corners):
                return None
            points = np.asarray(self._markers.getChessboardCorners(), dtype=np.float64)[ids.ravel()]
            if self.legacy:
                points[:, 1] = self.size[1] - points[:, 1]
            return Detection(name, np.asarray(corners, dtype=np.float64).reshape(-1, 2), points)
        return self._grid(grey, name)

    def _grid(self, grey: Image, name: str) -> Detection | None:
        settings = cv2.aruco.DetectorParameters()
        settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        found, numbers, _ = cv2.aruco.ArucoDetector(self._dictionary, settings).detectMarkers(grey)
        if numbers is None:
            return None
        if self.markers == 1:  # whatever its number is, as long as there is one
            if len(found) != 1:
                return None
            numbers = np.zeros_like(numbers)
        points, pixels = self._markers.matchImagePoints(found, numbers)
        if points is None or len(points) < min(LEAST_CORNERS, self.corners):
            return None
        return Detection(name, *(np.asarray(a, dtype=np.float64).reshape(len(points), -1) for a in (pixels, points)))

    def _chessboard(self, grey: Image, name: str, window: int | None, stop_px: float) -> Detection | None:
        size = (self.columns, self.rows)
        small, found = _at_most(grey, PEEK_PX), False
        if small is grey or cv2.checkChessboard(small, size):
            found, corners = cv2.findChessboardCorners(grey, size, flags=_CHESSBOARD)
        if not found:
            found, corners = cv2.findChessboardCornersSB(grey, size, flags=cv2.CALIB_CB_EXHAUSTIVE)
        if not found:
            return None
        if window is None:
            grid = corners.reshape(self.rows, self.columns, 2)
            nearest = min(np.linalg.norm(np.diff(grid, axis=axis), axis=2).min() for axis in (0, 1))
            window = int(np.clip(WINDOW_SHARE * nearest, NARROWEST_WINDOW, WIDEST_WINDOW))
        until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, STEPS, stop_px)
        corners = cv2.cornerSubPix(grey, corners, (window, window), (-1, -1), until)
        points = np.zeros((self.columns * self.rows, 3))
        points[:, :2] = self.square * np.mgrid[0 : self.columns, 0 : self.rows].T.reshape(-1, 2)
        return Detection(name, np.asarray(corners, dtype=np.float64).reshape(-1, 2), points)

    def larger(self, images: Sequence[Image]) -> tuple[int, int] | None:
        """Columns and rows of a larger chessboard, of which this one is a part, that most images show; or None."""
        small = [_at_most(image, GLANCE_PX) for image in images]
        for size in ((self.columns + 1, self.rows), (self.columns, self.rows + 1)):
            flags = _CHESSBOARD | cv2.CALIB_CB_FAST_CHECK
            shown = sum(bool(cv2.findChessboardCorners(image, size, flags=flags)[0]) for image in small)
            if 2 * shown > len(images):
                return size
        return None

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
        """Write the board, to be printed at 100 %. Makes missing folders.

        A PDF is a sheet of A4 or A3 with the board's data and a ruler, a PNG the board alone.

        Raises:
            ConfigError: The file's name ends in neither ``.pdf`` nor ``.png``, it cannot be written, or the board is
                too small or too large to be printed.
        """
        from PIL import Image as Picture  # noqa: PLC0415 (only printing needs it)

        from calibration.sheet import sheet  # noqa: PLC0415

        if path.suffix.lower() not in (".pdf", ".png"):
            raise ConfigError(f"{path} is neither a .pdf nor a .png")
        density = 1000.0 * DPI / MM_PER_INCH
        finest = self.square if self.kind == "chessboard" else min(self.square, self.marker)
        if finest * density < LEAST_PRINT_PX or max(self.size) * density > LARGEST_PRINT_PX:
            raise ConfigError(
                f"a board of {self.size[0]:.3g} x {self.size[1]:.3g} m cannot be printed at {DPI} dots an inch; "
                "lengths are in metres: 25 mm are 0.025"
            )
        picture = sheet(self, density) if path.suffix.lower() == ".pdf" else self.draw(density, margin)
        page = Picture.fromarray(picture).convert("1")
        temporary = path.with_name(f"{path.stem}.tmp{path.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            page.save(temporary, resolution=DPI, dpi=(DPI, DPI))
            temporary.replace(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error}") from error


def _at_most(image: Image, side: int) -> Image:
    """The image, made smaller where its longer side is more than ``side`` px."""
    scale = side / max(image.shape[:2])
    if scale >= 1.0:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)
