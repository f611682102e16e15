"""Files that are either whole or not there, and folders that one process writes at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

from sim2real.errors import ConfigError

LOCK = ".lock"  # in a folder that is being written
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
log = logging.getLogger(__name__)


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` to ``path`` at once: to a temporary name beside it, then renamed. Makes missing folders.

    Returns:
        ``path``.
    """
    return write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes | memoryview) -> Path:
    """As :func:`write_text`, for bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)  # part of a file only takes room
        error.filename = error.filename or str(path)
        raise
    return path


def storage_fault(error: OSError) -> str | None:
    """Say in words that a disk is full or a file must not be written; None for any other error."""
    where = f" (while writing {error.filename})" if error.filename else ""
    if error.errno in _FULL:
        return (
            f"the disk is full{where}; what was finished before is whole: free some space and run the same command "
            "again"
        )
    if error.errno in _DENIED:
        return f"{error.filename or 'a file'} cannot be opened or written ({error.strerror}); give another place"
    return None


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


class Lock:
    """Keeps what one process writes from all others, until it is released or the process ends; a context manager.

    Args:
        file: The lock's own file, which says who holds it. Only an open file locks: one that was left behind does not.
        what: What is kept, for the error.

    Raises:
        ConfigError: Another process holds it; the message names that process.
    """

    def __init__(self, file: Path, what: Path) -> None:
        self._file, self._made = file, not file.parent.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._open: IO[str] = file.open("a+")
            try:
                fcntl.flock(self._open, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._open.seek(0)
                holder = self._open.read().strip() or "another process"
                self._open.close()
                raise ConfigError(
                    f"{what} is being written by {holder}; wait until it has ended, end it, or choose another place"
                ) from None
            except OSError as error:
                log.warning("%s cannot be locked (%s); let no other process write there", what, error.strerror)
            if self._is_the_file():
                break
            self._open.close()
        command = " ".join([Path(sys.argv[0]).name.replace("__main__.py", "sim2real"), *sys.argv[1:]])[:200]
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        self._open.truncate(0)
        self._open.write(f"process {os.getpid()} on {socket.gethostname()} since {began} ({command})\n")
        self._open.flush()

    def _is_the_file(self) -> bool:
        """Tell whether the open file still has its name: who held it before may have removed it in between."""
        try:
            return os.path.samestat(self._file.stat(), os.fstat(self._open.fileno()))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others write; harmless when released."""
        if self._open.closed:
            return
        self._file.unlink(missing_ok=True)
        self._open.close()
        if self._made:
            with contextlib.suppress(OSError):  # it holds something, as it should
                self._file.parent.rmdir()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_folder(folder: Path) -> Lock:
    """Keep a folder to this process; it is made where it is missing. Raises as :class:`Lock` does."""
    return Lock(folder / LOCK, folder)


def lock_output(path: Path) -> Lock:
    """Keep a file or folder that is to be made at ``path`` to this process. Raises as :class:`Lock` does."""
    return Lock(path.with_name(f".{path.name}{LOCK}"), path)
