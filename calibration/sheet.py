"""A board on a sheet of paper, with what it is and a ruler that tells whether it was printed at its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from sim2real.types import Image

if TYPE_CHECKING:
    from calibration.boards import Board

PAPERS_M = {"A4": (0.210, 0.297), "A3": (0.297, 0.420)}
MARGIN_M = 0.008  # printers leave a white edge of 3 to 6 mm
FOOTER_M = 0.026
RULER_M, TICK_M = 0.1, 0.01
TEXT_M = 0.0035


def paper_for(board: Board) -> tuple[str, float, float]:
    """Name, width and height (m) of the smallest sheet that takes the board; its own size where none does."""
    width, height = board.size
    for name, sides in PAPERS_M.items():
        for across, down in (sides, sides[::-1]):
            if width + 2 * MARGIN_M <= across and height + 2 * MARGIN_M + FOOTER_M <= down:
                return name, across, down
    return "a sheet of its own size", max(width, RULER_M) + 2 * MARGIN_M, height + 2 * MARGIN_M + FOOTER_M


def described(board: Board) -> tuple[str, str]:
    """Description of a board, and the options that make it again."""
    mm = 1e3 * np.array([board.square, board.marker])
    count = f"{board.columns} x {board.rows}"
    options = f"--board {board.kind} --columns {board.columns} --rows {board.rows} --square {board.square:g}"
    dictionary = board.dictionary.removeprefix("DICT_")
    if board.kind == "chessboard":
        return f"chessboard, {count} inner corners, square {mm[0]:g} mm", options
    if board.kind == "charuco":
        legacy = ", legacy" if board.legacy else ""
        what = f"ChArUco, {count} squares, square {mm[0]:g} mm, marker {mm[1]:.4g} mm, dictionary {dictionary}{legacy}"
        options += f" --marker {board.marker:.6g} --dictionary {dictionary}{' --legacy' if board.legacy else ''}"
        return what, options
    what = f"grid, {count} markers, marker {mm[0]:g} mm, gap {mm[1]:g} mm, dictionary {dictionary}"
    return what, f"{options} --gap {board.marker:g} --dictionary {dictionary}"


def sheet(board: Board, pixels_per_m: float) -> Image:
    """The sheet as a grey image [H, W]."""
    _, across, down = paper_for(board)

    def px(metres: float) -> int:
        return round(metres * pixels_per_m)

    page = Picture.new("L", (px(across), px(down)), 255)
    pattern = board.draw(pixels_per_m)
    top = px(MARGIN_M) + (page.height - px(FOOTER_M) - 2 * px(MARGIN_M) - pattern.shape[0]) // 2
    page.paste(Picture.fromarray(pattern), ((page.width - pattern.shape[1]) // 2, top))
    draw = ImageDraw.Draw(page)
    foot, left = page.height - px(MARGIN_M + FOOTER_M), px(MARGIN_M)
    _ruler(draw, left, foot + px(0.008), pixels_per_m)
    lines = (f"Print at 100 %: this ruler is {1e3 * RULER_M:.0f} mm long.", *described(board))
    for number, line in enumerate(lines):
        draw.text(
            (left, foot + px(0.0095 + 0.005 * number)),
            line,
            fill=0,
            font=_font(draw, line, page.width - 2 * left, px(TEXT_M)),
        )
    return np.asarray(page, dtype=np.uint8)


def _font(draw: ImageDraw.ImageDraw, line: str, width: int, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font in which a line is no wider than ``width`` px."""
    font = ImageFont.load_default(size)
    return ImageFont.load_default(size * min(1.0, width / draw.textlength(line, font=font)))


def _ruler(draw: ImageDraw.ImageDraw, left: int, base: int, pixels_per_m: float) -> None:
    """A line of 100 mm with a tick every 10 mm; from the outer edge of its first tick to that of its last."""
    thin = max(1, round(0.0002 * pixels_per_m))
    right = left + round(RULER_M * pixels_per_m)
    draw.rectangle((left, base - thin, right - 1, base), fill=0)
    ticks = round(RULER_M / TICK_M)
    for tick in range(ticks + 1):
        at = min(left + round(tick * TICK_M * pixels_per_m), right - thin)
        tall = 0.006 if tick in (0, ticks) else 0.004 if tick == ticks // 2 else 0.003
        draw.rectangle((at, base - round(tall * pixels_per_m), at + thin - 1, base), fill=0)
