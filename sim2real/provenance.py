"""Origin of results."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sim2real import __version__


def commit() -> str:
    """The source's git commit with ``+`` for uncommitted changes, or ``unknown`` outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def made() -> dict[str, str]:
    """Say when, from which commit, on what and beside which load a result was made."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": load,
    }


def provenance(config: BaseModel, packages: Sequence[str], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Origin of a bundle: commit, configuration, versions, seed, figures.

    Args:
        config: Of its training; has a ``seed``.
        packages: Whose versions matter.
        metrics: Figures of the training simulator.
    """
    settings = config.model_dump(mode="json", by_alias=True)
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "sim2real": __version__,
        "commit": commit(),
        "config": settings,
        "seed": settings["seed"],
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}},
        "metrics": dict(metrics),
    }
