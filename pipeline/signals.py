"""How a service is asked to stop: SIGTERM or SIGINT set an event, and the work in hand is finished. And how it dies."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on SIGTERM and SIGINT while the body runs; in the main thread only."""

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {each: signal.signal(each, ask_to_stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def dying_when_frozen(seconds_max: float) -> Iterator[Callable[[], None]]:
    """Have the kernel end this process if the given function is not called for so long while the body runs.

    A process that was frozen (SIGSTOP, a debugger, a paused container) would go on with what it believed long ago. The
    kernel's timer runs on meanwhile, and its SIGALRM, which nobody handles, is there before any other instruction.
    """

    def alive() -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds_max)

    alive()
    try:
        yield alive
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
