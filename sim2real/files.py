"""Files that are either whole or not there."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from sim2real.errors import ConfigError


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` to ``path`` at once: to a temporary name beside it, then renamed. Makes missing folders.

    Returns:
        ``path``.
    """
    return write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> Path:
    """As :func:`write_text`, for bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
    return path


def must_be_writable(path: Path | None) -> Path | None:
    """Find out before long work whether a file can be written at ``path``; nothing is left behind.

    Returns:
        ``path``.

    Raises:
        ConfigError: It cannot.
    """
    if path is None:
        return None
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        if missing:
            missing[-1].mkdir()
            missing[-1].rmdir()
        else:
            with TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error}); give another place") from error
    return path
