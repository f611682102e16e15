"""Ctrl-C and SIGTERM: how a command ends early, and why its worker processes do not end by themselves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, by a KeyboardInterrupt, in a shielded process, too.

    Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, blocked = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGTERM, before)


@contextmanager
def shielded() -> Iterator[None]:
    """Start worker processes in this block: neither Ctrl-C nor SIGTERM reaches them, from their first moment on.

    A terminal sends Ctrl-C to all processes of a command, and some service managers do so with SIGTERM. Workers that
    were hit would print a traceback each and take the step away that their parent wants to save. It must end them by a
    message, or with SIGKILL.
    """
    resource_tracker.ensure_running()  # the first start of a worker would, and unblocks the signals again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
