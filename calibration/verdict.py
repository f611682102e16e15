"""Judgement of a camera's calibration, in words, and of other lens models that would fit better."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from calibration.boards import Detection
from calibration.intrinsics import LEAST_VIEWS, IntrinsicsResult, calibrate_camera, held_out_px
from sim2real.errors import ConfigError
from sim2real.runtime.camera import LENSES, Lens

GOOD, USABLE, USELESS = "good", "usable", "do not use"
WORST_PX = 3.0  # corners are found to 0.1 to 1 px; what is farther off is another corner, board or camera
GOOD_PX = 1.0
WORST_FOCAL, GOOD_FOCAL = 0.03, 0.005  # standard deviation of the focal length, of itself
WORSE_UNSEEN = 2.0  # views not seen may fit so many times worse than those seen
BETTER_LENS, BETTER_PX = 0.8, 0.05  # another lens is named if its error is so many times, and by so much, smaller
DIFFERENT_DEVIATIONS, DIFFERENT_FOCAL = 5.0, 0.01  # two cameras differ by so much in focal length


@dataclass(frozen=True)
class Verdict:
    """A judgement of a calibration.

    Attributes:
        word: ``good``, ``usable`` or ``do not use``.
        reasons: Why it is not better.
        lenses: Error of views not seen by lens model, px; NaN where it cannot be fitted.
    """

    word: str
    reasons: tuple[str, ...]
    lenses: dict[str, float]


def judge(
    result: IntrinsicsResult, detections: Sequence[Detection], size: tuple[int, int], fixed_aspect: bool = False
) -> Verdict:
    """Judge a calibration.

    Args:
        result: The fit.
        detections: Corners it was given, one entry a view.
        size: Width and height of the images, px.
        fixed_aspect: fx = fy was held.
    """
    camera = result.camera
    focal = float((result.std[:2] / camera.matrix[[0, 1], [0, 1]]).max())
    useless, less = [], []
    name = f"fx is {camera.matrix[0, 0]:.0f} ± {result.std[0]:.0f} px ({focal:.1%}, {WORST_FOCAL:.0%} is allowed)"
    if not focal <= WORST_FOCAL:
        tilt = max(view.tilt_deg for view in result.views if not view.dropped)
        useless.append(f"{name}: the most tilted view is tilted by {tilt:.0f}°; tilt the board by 30° and more")
    elif focal > GOOD_FOCAL:
        less.append(f"the focal length is known to {focal:.1%} only, {GOOD_FOCAL:.1%} is good: more views, more tilted")
    for error, what in ((camera.rms_px, "the corners"), (camera.held_out_px, "the corners of views not seen")):
        if error > WORST_PX:
            useless.append(
                f"{what} are {error:.1f} px off, {WORST_PX:.0f} are allowed: check the board's kind, columns and rows, "
                "and the lens (--lens fisheye for a very wide one)"
            )
        elif error > GOOD_PX:
            less.append(f"{what} are {error:.2f} px off, {GOOD_PX:g} px is good")
    if camera.held_out_px > WORSE_UNSEEN * max(camera.rms_px, 0.1):
        less.append(
            f"views not seen fit {camera.held_out_px / camera.rms_px:.1f} times worse than those seen: more views"
        )
    kept = [d for d, view in zip(detections, result.views, strict=True) if not view.dropped]
    lenses = {lens: _error_with(lens, kept, size, fixed_aspect) for lens in LENSES if lens != camera.lens}
    lenses = {camera.lens: camera.held_out_px} | lenses
    best = min(lenses, key=lambda lens: lenses[lens] if np.isfinite(lenses[lens]) else np.inf)
    if lenses[best] < min(BETTER_LENS * camera.held_out_px, camera.held_out_px - BETTER_PX):
        less.append(f"--lens {best} fits views not seen better: {lenses[best]:.2f} px, not {camera.held_out_px:.2f} px")
    word = USELESS if useless else USABLE if less or result.advice else GOOD
    return Verdict(word, (*useless, *less), lenses)


def _error_with(lens: str, views: Sequence[Detection], size: tuple[int, int], fixed_aspect: bool) -> float:
    try:
        return held_out_px(views, size, lens, fixed_aspect and lens != "fisheye")  # type: ignore[arg-type]
    except ConfigError:
        return float("nan")


def refuse_useless(verdict: Verdict) -> None:
    """Refuse a calibration that is not to be used.

    Raises:
        ConfigError: It is not.
    """
    if verdict.word == USELESS:
        raise ConfigError(f"do not use; nothing was written: {'; '.join(verdict.reasons)}")


def refuse_two_cameras(detections: Sequence[Detection], size: tuple[int, int], lens: Lens) -> None:
    """Refuse images of several cameras in one folder, as their names tell them apart: ``left-1``, ``right-1``.

    Raises:
        ConfigError: Their focal lengths differ by more than they are uncertain.
    """
    groups: dict[str, list[Detection]] = defaultdict(list)
    for detection in detections:
        groups[re.sub(r"\d+", "*", PurePath(detection.name).stem)].append(detection)
    if len(groups) < 2 or min(map(len, groups.values())) < LEAST_VIEWS:
        return
    found = {}
    for name, views in groups.items():
        try:
            result = calibrate_camera(views, size, lens)
        except ConfigError:
            return
        found[name] = (float(result.camera.matrix[0, 0]), float(result.std[0]))
    (low, (least, std_low)), *_, (high, (most, std_high)) = sorted(found.items(), key=lambda item: item[1])
    if most - least > max(DIFFERENT_DEVIATIONS * float(np.hypot(std_low, std_high)), DIFFERENT_FOCAL * least):
        raise ConfigError(
            f"{low} and {high} are two cameras: fx is {least:.0f} ± {std_low:.0f} and {most:.0f} ± {std_high:.0f} px; "
            "put the images of each into a folder of its own"
        )
