"""What Stripe's answer means for us (I8): done, try again, not allowed, or never."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

NO_KEY: Final = "Stripe does not accept our API key"

_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ok(Generic[_T_co]):
    """It was done; this is what Stripe gave back."""

    value: _T_co


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """Network, 5xx, 429 or a bad key of ours: it may or may not have been done; keep the row and try again later.

    `key_is_spent`: this idempotency key will give no other answer, so find out what was done, then take a fresh key.
    """

    reason: str
    key_is_spent: bool = False


@dataclass(frozen=True, slots=True)
class RefusedPermission:
    """The account's Stripe account does not let us in: unlinked, closed, or a permission taken away."""

    reason: str


@dataclass(frozen=True, slots=True)
class RefusedForGood:
    """It was not done, and the same request will never be."""

    reason: str


Refusal = TemporaryFailure | RefusedPermission | RefusedForGood
Outcome = Ok[_T_co] | Refusal
