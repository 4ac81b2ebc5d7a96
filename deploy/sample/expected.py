"""What must become of the sample traffic: kept while it is written, compared when all is done."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from deploy.sample.calls import Rating

CALLS_TOPIC: Final = "calls.raw"
SIP_TOPIC: Final = "sip.raw"


class Sent(NamedTuple):
    """One Kafka record; a `value` of None is a tombstone."""

    topic: str
    key: bytes
    value: bytes | None


class Group(NamedTuple):
    """Messages that follow one another without a pause, and when the last of them was written."""

    at: datetime
    messages: list[Sent]


class Owner(NamedTuple):
    """Whose usage: a tenant's, an account's unassigned (`tenant` None), or nobody's (both None)."""

    account: str | None
    tenant: str | None


NOBODY: Final = Owner(None, None)


@dataclass(slots=True)
class Usage:
    """Sums of posted records."""

    attempts: int = 0
    calls: int = 0
    answered_seconds: Decimal = Decimal(0)
    billed_seconds: int = 0
    cost: Decimal = Decimal(0)

    def add(self, seconds: Decimal, rating: Rating) -> None:
        """Count one more record."""
        self.attempts += 1
        self.calls += seconds > 0
        self.answered_seconds += seconds
        self.billed_seconds += rating.billed_seconds
        self.cost += rating.cost


@dataclass(slots=True)
class Expected:
    """The counts and sums that are right. `usage` is in the month's statements, `late_usage` came after its close.

    `outcomes` counts messages by (outcome, reason), `unattributed` posted records by why they have no tenant,
    `headers_ignored` headers on dedicated addresses by the name they gave.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    usage: dict[Owner, Usage] = field(default_factory=lambda: defaultdict(Usage))
    late_usage: dict[Owner, Usage] = field(default_factory=lambda: defaultdict(Usage))
    unattributed: Counter[str] = field(default_factory=Counter)
    headers_ignored: Counter[str] = field(default_factory=Counter)
