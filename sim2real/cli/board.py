"""The options that describe a calibration board, once for all commands that take one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sim2real.cli.options import takes
from sim2real.errors import ConfigError

if TYPE_CHECKING:
    from calibration.boards import Board

MARKER_FRACTION = 22.0 / 30.0  # of a charuco board's square


def chosen_board(
    board: Annotated[str, typer.Option(help="charuco, chessboard, or grid (ArUco or AprilTag markers).")] = "charuco",
    columns: Annotated[
        int, typer.Option(help="Inner corners (chessboard), squares (charuco) or markers (grid) in a row.")
    ] = 5,
    rows: Annotated[int, typer.Option(help="The same in a column.")] = 7,
    square: Annotated[
        float, typer.Option(help="Side of a square (grid: of a marker), m, measured on the print.")
    ] = 0.03,
    marker: Annotated[
        float | None, typer.Option(help="Side of a charuco board's marker, m; 22/30 of the square by default.")
    ] = None,
    gap: Annotated[float | None, typer.Option(help="Between the markers of a grid, m. A grid needs it.")] = None,
    dictionary: Annotated[str, typer.Option(help="Of the markers: 5X5_250, APRILTAG_36h11, …")] = "5X5_250",
    legacy: Annotated[
        bool, typer.Option(help="A charuco board and its frame as OpenCV before 4.6 and MoveIt have them.")
    ] = False,
) -> Board:
    """Make the board that the options describe.

    Raises:
        ConfigError: There is no such board, or OpenCV is missing.
    """
    try:
        from calibration.boards import Board
    except ImportError as error:
        raise ConfigError(f"calibration needs OpenCV ({error}): pip install 'sim2real[vision]'") from error
    if board not in ("charuco", "chessboard", "grid"):
        raise ConfigError(f"unknown board '{board}'; it is charuco, chessboard or grid")
    if board != "grid" and gap is not None:
        raise ConfigError(f"--gap is between the markers of a grid; a {board} has none")
    if board == "grid":
        gap = marker if gap is None else gap  # as it was called first
        if gap is None and columns * rows == 1:
            gap = 0.25 * square  # one marker has none
        if gap is None:
            raise ConfigError("a grid needs --gap, between its markers; measure it on the print, m")
        return Board("grid", columns, rows, square, gap, dictionary, legacy)
    side = MARKER_FRACTION * square if marker is None else marker
    return Board(board, columns, rows, square, side, dictionary, legacy)  # type: ignore[arg-type]


takes_board = takes(chosen_board, "pattern", {"Board": object})
