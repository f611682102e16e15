"""Silence for libraries that write to the terminal themselves."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_DUPFD_CLOEXEC, fcntl

STREAMS = (1, 2)  # standard output and error
_LOCK = threading.RLock()  # streams are the whole process's: a second thread would save what the first has put in place


@contextmanager
def quiet() -> Iterator[None]:
    """Throw away what the whole process writes to standard output and error meanwhile, compiled code included.

    What was written before is flushed; a stream that is closed stays closed.
    """
    with _LOCK:
        yield from _silenced()


def _silenced() -> Iterator[None]:
    _flush()
    kept = {stream: copy for stream in STREAMS if (copy := _copy(stream)) is not None}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in kept:
            os.dup2(nowhere, stream)
        yield
    finally:
        _flush()
        for stream, copy in kept.items():
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)


def _copy(stream: int) -> int | None:
    try:
        return fcntl(stream, F_DUPFD_CLOEXEC, max(STREAMS) + 1)
    except OSError:  # it is closed
        return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    ctypes.CDLL(None).fflush(None)
