"""What Stripe's refusals mean for us (I8). The API key is in no reason."""

from __future__ import annotations

import re
from typing import Final

import stripe

from invoicing.door import NotSentError
from invoicing.outcomes import NO_KEY, Refusal, RefusedForGood, RefusedPermission, TemporaryFailure

REASON_CHARACTERS_MAX: Final = 300

_KEY = re.compile(r"\b[sr]k_(?:test|live)_\S+")
_LOST_ACCOUNT: Final = frozenset({"account_invalid", "account_closed", "platform_account_required"})


def refusal(error: stripe.StripeError) -> Refusal:
    """What the library's exception says about the request: not done yet, not allowed, or never."""
    status = error.http_status
    if isinstance(error, stripe.IdempotencyError):
        return TemporaryFailure("the idempotency key was used with other content", key_is_spent=True)
    if isinstance(error, stripe.APIConnectionError) or status is None:
        late = isinstance(error, NotSentError)
        return TemporaryFailure("its turn came too late" if late else "Stripe could not be reached")
    if isinstance(error, stripe.AuthenticationError):
        return TemporaryFailure(NO_KEY)
    if isinstance(error, stripe.PermissionError) or _code(error) in _LOST_ACCOUNT:
        return RefusedPermission(_reason(error))
    if isinstance(error, stripe.RateLimitError) or status == 409 or status >= 500:
        replayed = (error.headers or {}).get("idempotent-replayed") == "true"
        return TemporaryFailure(f"Stripe answered {status}", key_is_spent=replayed)
    return RefusedForGood(_reason(error))


def _code(error: stripe.StripeError) -> str | None:
    """Stripe's word for what is wrong; the library keeps it in one of two places."""
    told = None if error.error is None else getattr(error.error, "code", None)
    return error.code or told


def _reason(error: stripe.StripeError) -> str:
    told = error.user_message or "no reason given"
    code = _code(error)
    text = f"{code}: {told}" if code else told
    return _KEY.sub("sk_…", text)[:REASON_CHARACTERS_MAX]
