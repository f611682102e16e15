"""One page to judge an adaptation by: rendered, adapted, nearest real; masks; what the gate says; failures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.adapt.finish import FEWEST_FOR_DISTANCES, Finished
from sim2real.evaluate.figures import data_uri
from sim2real.evaluate.page import write_page


def write_adaptation_report(run_dir: Path, name: str, finished: Finished) -> Path:
    """``report.html`` of a trained run."""
    return write_page(
        run_dir / "report.html", "adaptation.html", title=f"Adaptation '{name}'", verdict=finished.verdict,
        pictures={what: _png(image) for what, image in finished.pictures.items()},
        figures={what: f"{value:.4g}" for what, value in finished.figures.items()},
        checks=finished.checks, kept=finished.kept, facts=finished.facts,
        real_held_out=finished.real_held_out, enough=FEWEST_FOR_DISTANCES,
    )  # fmt: skip


def _png(image: NDArray[np.uint8]) -> str:
    return data_uri(cv2.imencode(".png", image[..., ::-1])[1].tobytes(), "png")
