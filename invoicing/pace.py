"""How fast we may ask: one limiter for each Stripe account, below Stripe's own limits.

Stripe allows an account 100 requests a second in live mode and 25 in test mode, and most single endpoints 25 a second;
beyond that it answers 429 (its documentation, "Rate limits"). Requests are spread evenly: whoever was held up may catch
up a little, so that a short delay costs nothing, and no second ever sees more than 1.2 times what is permitted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

CATCH_UP_SECONDS: Final = 0.2
PUSHED_BACK_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Turns:
    next_at: float
    given: int = 0
    gate: threading.Lock = field(default_factory=threading.Lock)  # held by the one whose turn is next


class Pace:
    """Lets `per_second_max` requests a second go to one Stripe account, from any number of threads.

    `monotonic` gives seconds that only grow; `sleep` waits for some.
    """

    def __init__(
        self, per_second_max: float, monotonic: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        self.per_second_max = per_second_max
        self._monotonic = monotonic
        self._sleep = sleep
        self._turns: dict[str, _Turns] = {}
        self._lock = threading.Lock()

    def admit(self, account: str) -> None:
        """Return when the next request of this Stripe account may go.

        The turn is taken on waking, not before: requests that a busy machine held up do not all go at once afterwards.
        """
        turns = self._turns_of(account)
        with turns.gate:
            wait = turns.next_at - self._monotonic()
            if wait > 0:
                self._sleep(wait)
            with self._lock:
                began_at = max(turns.next_at, self._monotonic() - CATCH_UP_SECONDS)
                turns.next_at = began_at + 1 / self.per_second_max
                turns.given += 1

    def slow_down(self, account: str) -> None:
        """Stripe answered 429: nothing more goes to this account for a second."""
        turns = self._turns_of(account)
        with self._lock:
            turns.next_at = max(turns.next_at, self._monotonic() + PUSHED_BACK_SECONDS)

    def admitted(self, account: str) -> int:
        """How many requests of this Stripe account have been let go so far."""
        return self._turns_of(account).given

    def _turns_of(self, account: str) -> _Turns:
        with self._lock:
            return self._turns.setdefault(account, _Turns(self._monotonic()))
