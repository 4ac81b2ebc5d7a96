"""Telling the audience what happens, and waiting with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from deploy.stack.running import SERVICES, RunningStack

_wait_seconds_max: Final = 90.0
_poll_seconds: Final = 0.1
_plain_width: Final = 110


class WaitedTooLongError(RuntimeError):
    """Something that should have happened did not; the message says what, and quotes the services' logs."""


class Stage:
    """One console, one clock, and the processes that must not end meanwhile."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack = stack
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = _plain_width
        self._began = time.monotonic()
        self._phases = 0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def phase(self, sentence: str) -> None:
        """Say what happens next."""
        self._phases += 1
        self.console.print(f"[bold cyan]{self._phases}[/] [dim]{self.seconds:4.1f} s[/] {sentence}")

    def note(self, text: str) -> None:
        """Say a detail of it."""
        self.console.print(f"   {text}")

    def until(self, what: str, reached: Callable[[], bool]) -> None:
        """Wait until something is so.

        Raises:
            WaitedTooLongError: it did not come in time.
            ServiceEndedError: a process ended meanwhile.
        """
        deadline = time.monotonic() + _wait_seconds_max
        pause = threading.Event()
        while not reached():
            self.stack.check()
            if time.monotonic() > deadline:
                tails = "\n".join(self.stack.log_tail(name) for name in SERVICES)
                raise WaitedTooLongError(f"not within {_wait_seconds_max:.0f} s: {what}\n{tails}")
            pause.wait(_poll_seconds)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], int]]:
        """A progress bar on a terminal; yields a function that is told how much is done, and gives it back."""
        columns = (
            *(TextColumn("   "), SpinnerColumn(), BarColumn(), MofNCompleteColumn()),
            *(TextColumn("{task.description}"), TimeElapsedColumn()),
        )
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(title, total=total)

            def done(number: int) -> int:
                bar.update(task, completed=number)
                return number

            yield done
