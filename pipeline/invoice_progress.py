"""How far an account's invoices are, how fast they go, and how long it may still take: a line every few seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Engine

from invoicing import progress_store
from invoicing.pace import Pace

LOG_SECONDS: Final = 10.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an account stands: invoices done and left, Stripe requests a second, seconds that are likely left."""

    account_id: int
    account: str
    done: int
    left: int
    requests_per_second: float
    seconds_left: float | None

    def __str__(self) -> str:
        estimate = "" if self.seconds_left is None else f", about {_duration(self.seconds_left)} left"
        return (
            f"{self.account}: {self.done:,} of {self.done + self.left:,} invoices, "
            f"{self.requests_per_second:.0f} requests/s{estimate}"
        )


Tell = Callable[[Standing], object]


def log_standing(standing: Standing) -> None:
    """One line in the log, which names no account."""
    left = standing.seconds_left
    _log.info(
        "invoicing_progress",
        account=standing.account_id,
        done=standing.done,
        left=standing.left,
        requests_per_second=round(standing.requests_per_second, 1),
        seconds_left=None if left is None else round(left),
    )


@dataclass(slots=True)
class Progress:
    """One account's progress since it last had nothing to do. Thread-safe; `monotonic` gives seconds that only grow.

    `tell` hears of it every `tell_seconds`, and at the end.
    """

    engine: Engine
    pace: Pace
    account_id: int
    monotonic: Callable[[], float]
    tell: Tell = log_standing
    tell_seconds: float = LOG_SECONDS
    _done: int = 0
    _told_at: float = field(init=False)
    _started_at: float = field(init=False)
    _asked_before: int | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._started_at = self._told_at = self.monotonic()
        self._asked_before = self._asked(self._work())

    def note(self, *, done: bool) -> None:
        """One more row was worked on; tells how far it is, now and then."""
        with self._guard:
            self._done += done
            now = self.monotonic()
            if now - self._told_at < self.tell_seconds:
                return
            self._told_at = now
        self.tell(self.standing())

    def finished(self) -> bool:
        """Whether nothing is left; says so."""
        standing = self.standing()
        if not standing.left:
            self.tell(standing)
        return not standing.left

    def standing(self) -> Standing:
        """Where the account stands now."""
        work, elapsed = self._work(), max(self.monotonic() - self._started_at, 1e-3)
        asked = self._asked(work) - (self._asked_before or 0)
        remaining = work.left * elapsed / self._done if self._done else None
        return Standing(self.account_id, work.account, self._done, work.left, asked / elapsed, remaining)

    def _work(self) -> progress_store.AccountWork:
        with self.engine.begin() as connection:
            return progress_store.work_of(connection, self.account_id)

    def _asked(self, work: progress_store.AccountWork) -> int:
        return 0 if work.stripe_account is None else self.pace.admitted(work.stripe_account)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
