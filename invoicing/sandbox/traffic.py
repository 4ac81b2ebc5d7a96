"""How requests come in: how long they take, how many at once, and how many a second are too many."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import Final

HELD_SECONDS_MAX: Final = 60.0


class Traffic:
    """The requests of all Stripe accounts. Thread-safe.

    `asked` counts them by account; `busiest` is how many of an account were under way at once, at most.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.asked: Counter[str] = Counter()
        self.busiest: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()
        self._held: dict[str, Event] = {}
        self._arrivals: dict[str, deque[float]] = {}
        self._per_second_max: int | None = None
        self._latency_seconds = (0.0, 0.0)
        self._dice = random.Random(0)  # noqa: S311 (a delay's length, no secret)
        self._lock = Lock()
        self._monotonic = monotonic

    def set_latency(self, seconds: float, jitter_seconds: float = 0.0) -> None:
        """Let every answer take so long, give or take."""
        self._latency_seconds = (seconds, jitter_seconds)

    def set_limit(self, per_second_max: int | None) -> None:
        """Have more than so many requests of an account within any second be too many; None: there is no limit."""
        self._per_second_max = per_second_max

    def hold(self, account: str, until: Event) -> None:
        """Let an account's requests hang until then."""
        self._held[account] = until

    @property
    def under_way(self) -> int:
        """Requests that have come in and are not answered yet."""
        return self._under_way.total()

    @contextmanager
    def request_of(self, account: str) -> Iterator[bool]:
        """One request, after what it takes to arrive. Yields whether it is one too many."""
        with self._lock:
            too_many = self._arrive(account)
            seconds, jitter = self._latency_seconds
            delay = max(0.0, seconds + self._dice.uniform(-jitter, jitter))
        try:
            time.sleep(delay)
            if account in self._held:
                self._held[account].wait(HELD_SECONDS_MAX)
            yield too_many
        finally:
            with self._lock:
                self._under_way[account] -= 1

    def _arrive(self, account: str) -> bool:
        self.asked[account] += 1
        self._under_way[account] += 1
        self.busiest[account] = max(self.busiest[account], self._under_way[account])
        now, arrivals = self._monotonic(), self._arrivals.setdefault(account, deque())
        while arrivals and arrivals[0] <= now - 1:
            arrivals.popleft()
        if self._per_second_max is not None and len(arrivals) >= self._per_second_max:
            return True
        arrivals.append(now)
        return False
