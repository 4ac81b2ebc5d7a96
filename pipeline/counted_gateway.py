"""Stripe, with each request's outcome and seconds counted for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from invoicing.gateway import StripeGateway
from invoicing.outcomes import Ok, Outcome, RefusedForGood, RefusedPermission, TemporaryFailure
from pipeline import metrics

_T = TypeVar("_T")
_OUTCOMES: Final[dict[type[Outcome[object]], str]] = {
    Ok: "ok",
    TemporaryFailure: "temporary",
    RefusedPermission: "permission",
    RefusedForGood: "refused",
}


class CountedGateway(StripeGateway):
    """The gateway as invoicers use it."""

    def _call(self, account: str, request: Callable[[], _T]) -> Outcome[_T]:
        with metrics.STRIPE_SECONDS.time():
            outcome = super()._call(account, request)
        metrics.STRIPE_REQUESTS.labels(outcome=_OUTCOMES[type(outcome)]).inc()
        return outcome
