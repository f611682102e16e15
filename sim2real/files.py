"""Files that are either whole or not there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sim2real.errors import ConfigError


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` to ``path`` at once: to a temporary name beside it, then renamed. Makes missing folders.

    Returns:
        ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
    return path


def check_writable(*paths: Path | None) -> None:
    """Find out before the work whether its results can be written. Makes missing folders.

    Args:
        paths: Files to be written later; None is passed over.

    Raises:
        ConfigError: A folder cannot be made or written to, or there is a folder in the file's place.
    """
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file in it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}; choose another place") from error
