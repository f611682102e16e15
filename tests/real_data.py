"""Recordings of real hardware: the whole sets where they are at hand, else the excerpts in ``tests/data``."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def whole(kind: str) -> Path:
    """Folder of all recordings: ``$SIM2REAL_DATA``, else ``../shared/data`` beside the repository; skips without."""
    for root in (os.environ.get("SIM2REAL_DATA"), HERE.parent.parent / "shared" / "data"):
        if root and (folder := Path(root) / kind).is_dir():
            return folder
    return pytest.skip(f"needs all of {kind}, an excerpt is not enough; set SIM2REAL_DATA")


def excerpt(kind: str) -> Path:
    """Folder of the recordings that come with the repository; ``tests/data/README.md`` says where they are from."""
    return HERE / "data" / kind


def real_data(kind: str) -> Path:
    """The whole set where it is at hand, else the excerpt."""
    try:
        return whole(kind)
    except pytest.skip.Exception:
        return excerpt(kind)


# For tests that hold for both; the whole set takes its time.
BOTH = pytest.mark.parametrize("recordings", [pytest.param(whole, marks=pytest.mark.slow), excerpt])
