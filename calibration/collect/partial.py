"""Folder in which an unfinished recording keeps its candidates."""

from __future__ import annotations

from pathlib import Path

from sim2real.errors import CollectionError
from sim2real.files import lock_output
from sim2real.images.dataset import HEADER


def partial_folder(out: Path) -> Path:
    """Folder that holds a recording's candidates until it is finished."""
    return out.with_name(out.name + ".partial")


def refuse_existing(out: Path, resume: bool) -> None:
    """Refuse to overwrite.

    Raises:
        CollectionError: The dataset exists; or an unfinished recording exists without ``resume``, or none with it.
        ConfigError: Another process is recording it.
    """
    with lock_output(out):
        _refuse_existing(out, resume)


def _refuse_existing(out: Path, resume: bool) -> None:
    partial = partial_folder(out)
    if out.exists():
        raise CollectionError(f"{out} exists; choose another folder or move it away")
    begun = (partial / HEADER).is_file()
    if begun and not resume:
        raise CollectionError(
            f"{partial} holds an unfinished recording; go on with 'collect live' and --resume, or remove it"
        )
    if resume and not begun:
        raise CollectionError(f"there is no unfinished recording at {partial}; leave out --resume")
    if partial.exists() and not begun:
        if any(partial.iterdir()):
            raise CollectionError(f"{partial} is in the way and is no recording; move it away")
        partial.rmdir()
