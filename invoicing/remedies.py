"""What resolves it: for each state in which an invoice stands still, the command that helps."""

from __future__ import annotations

from typing import Final

from invoicing.outcomes import NO_KEY
from invoicing.states import AWAITED, State

_RETRY: Final = "invoice retry"
_ANEW: Final = f"or delete the draft there: the first {_RETRY} finds it gone, the second makes it anew"
_BY_REASON: Final = {
    "no_stripe_link": "stripe link (this month's go on by themselves), invoice retry for earlier ones",
    "unlinked": "stripe link (this month's go on by themselves), invoice retry for earlier ones",
    "perhaps_scheduled_elsewhere": (
        "look in the Stripe account that was linked before: it may send this invoice; "
        f"stripe unlink, stripe link that one again, then {_RETRY}"
    ),
    "no_tenant_details": f"tenant change, tenant validate-address, then {_RETRY}",
    "no_billing_email": f"tenant change --email, then {_RETRY}",
    "address_not_validated": f"tenant validate-address, then {_RETRY}",
    "currency_differs": f"profile apply, then {_RETRY} --present-profile",
    "too_many_lines": f"profile apply, then {_RETRY} --present-profile",
    "total_over_maximum": f"profile apply, then {_RETRY} --present-profile",
    "statement_altered": "reconcile: the statement's bytes are not what was hashed",
}
_BY_STATE: Final = {
    State.NOT_BILLED: "profile apply (bills from the next statement on); for this month invoice one-time --month",
    State.HELD: f"mend it in Stripe, or tenant change and validate-address, then {_RETRY}; {_ANEW}",
    State.FAILED: f"mend what Stripe refuses, then {_RETRY}; a customer that is gone: stripe customer first; {_ANEW}",
    State.FINALIZATION_FAILED: f"mend what Stripe refuses, then {_RETRY}",
    State.DELETED: f"{_RETRY} makes it anew",
}


def remedy(state: State, reason: str | None, *, paused: bool) -> str | None:
    """The command that resolves what an invoice waits for; None: nothing needs anybody."""
    if state is State.BLOCKED:
        return _BY_REASON.get(reason or "", _RETRY)
    waits = state in {State.RECEIVED, State.DRAFTING, State.DRAFTED} or (
        state in AWAITED and reason is not None  # its day has passed, and it could not be read
    )
    if waits and reason == NO_KEY:
        return "set STRIPE_API_KEY to a key that Stripe accepts, and start the invoicer again"
    if waits and paused:
        return "mend it in Stripe, then stripe resume; or stripe unlink"
    return _BY_STATE.get(state)
