"""Recordings of real robots, where they are at hand."""

import os
from pathlib import Path

import pytest


def real_data(kind: str) -> Path:
    """Folder of recordings: ``$SIM2REAL_DATA``, else ``../shared/data`` beside the repository."""
    root = Path(os.environ.get("SIM2REAL_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
    if not (root / kind).is_dir():
        pytest.skip(f"no recordings at {root / kind}; set SIM2REAL_DATA")
    return root / kind
