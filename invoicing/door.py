"""What every single request to Stripe passes last, also one that the library repeats by itself: its turn, its condition."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

import stripe

TIMEOUT_SECONDS: Final = (3.0, 10.0)  # to connect, to answer
TOO_FAST: Final = 429


class Limiter(Protocol):
    """How fast a Stripe account may be asked (`pace.Pace`)."""

    def admit(self, account: str) -> None:
        """Return when the next request of this Stripe account may go."""

    def slow_down(self, account: str) -> None:
        """Stripe said that it was asked too fast."""


class Unlimited:
    """For a request now and then: nobody waits."""

    def admit(self, account: str) -> None:
        """At once."""

    def slow_down(self, account: str) -> None:
        """Whoever asks once in a while cannot go slower."""


class NotSentError(stripe.APIConnectionError):
    """The request's turn came too late; it did not go."""

    def __init__(self) -> None:
        super().__init__("not sent", should_retry=False)  # type: ignore[no-untyped-call]


class _Conditions(threading.local):
    allowed: Callable[[], bool] | None = None


class Door(stripe.RequestsClient):
    """What every single request passes last, also one that the library repeats by itself: its turn, its condition."""

    def __init__(self, timeout_seconds: tuple[float, float], limiter: Limiter) -> None:
        super().__init__(timeout=timeout_seconds)
        self._conditions = _Conditions()
        self._limiter = limiter

    @contextmanager
    def only_while(self, allowed: Callable[[], bool]) -> Iterator[None]:
        """Within the block, in this thread, let requests go only while this is still so when their turn has come (I7)."""
        self._conditions.allowed = allowed
        try:
            yield
        finally:
            self._conditions.allowed = None

    def request(  # type: ignore[override] # the library's own classes differ in the same way
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: object = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request when its turn has come and its condition still holds.

        Raises:
            NotSentError: it does not hold any more.
        """
        account = (headers or {})["Stripe-Account"]
        self._limiter.admit(account)
        if self._conditions.allowed is not None and not self._conditions.allowed():
            raise NotSentError
        answer = super().request(method, url, headers, post_data)
        if answer[1] == TOO_FAST:
            self._limiter.slow_down(account)
        return answer
