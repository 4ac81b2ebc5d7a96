"""How fast we may ask: a token bucket for each Stripe account, below Stripe's own limits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class Pace:
    """Lets at most `per_second_max` requests a second go to one Stripe account; a second's worth may go at once.

    `monotonic` gives seconds that only grow; `sleep` waits for some.
    """

    def __init__(
        self, per_second_max: float, monotonic: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        self._per_second_max = per_second_max
        self._monotonic = monotonic
        self._sleep = sleep
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def admit(self, account: str) -> None:
        """Return when the next request of this Stripe account may go."""
        wait = self._reserve(account)
        if wait > 0:
            self._sleep(wait)

    def _reserve(self, account: str) -> float:
        """Take one token, in advance if need be; gives the seconds until it is earned."""
        with self._lock:
            now = self._monotonic()
            burst = max(1.0, self._per_second_max)
            bucket = self._buckets.setdefault(account, _Bucket(burst, now))
            earned = (now - bucket.filled_at) * self._per_second_max
            bucket.tokens = min(burst, bucket.tokens + earned) - 1
            bucket.filled_at = now
            return max(0.0, -bucket.tokens / self._per_second_max)
