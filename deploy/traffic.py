"""A month of a carrier's traffic, and what each message must become.

Everything is drawn from one seed. Each kind of call is written together with what was meant by it, so the expected
counts and totals come from intent: no rule of the product is asked. Kinds that go wrong on purpose (resends, spoofed
headers, broken JSON, …) come a few times even in a small month.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, Final, NamedTuple

import orjson

from deploy.calls import SWITCH, Rating, Talk, invite, rated_by_tariff, sip_text, wire_time
from deploy.sample_carrier import (
    ABROAD,
    DEFAULT_TENANT,
    RESELLER,
    SHARED_IPV6,
    SHARED_WITH_DEFAULT,
    SHARED_WITHOUT_DEFAULT,
    SampleCarrier,
    SampleTenant,
)

CALLS_TOPIC: Final = "calls.raw"
SIP_TOPIC: Final = "sip.raw"
calls_min: Final = 200

_NEW_YORK: Final = timezone(timedelta(hours=-4))
_UNOWNED_NUMBER: Final = "+12125550198"
_UNOWNED_IP: Final = "203.0.113.200"
_DOMESTIC: Final = {RESELLER: ("+1415555{:04d}", "+1787555{:04d}"), ABROAD: ("+49302312{:04d}",)}
_ABROAD: Final = {
    RESELLER: (("44", "+44207946{:04d}"), ("1876", "+1876555{:04d}")),
    ABROAD: (("44", "+44207946{:04d}"), ("1212", "+1212555{:04d}")),
}
_UNPRICED: Final = "+33199001234"


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
    """What must become of it all. `usage` is in the month's statements, `late_usage` came after its close.

    `outcomes` counts messages by (outcome, reason), `unattributed` posted records by why they have no tenant,
    `headers_ignored` headers on dedicated addresses by the name they gave.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    usage: dict[Owner, Usage] = field(default_factory=lambda: defaultdict(Usage))
    late_usage: dict[Owner, Usage] = field(default_factory=lambda: defaultdict(Usage))
    unattributed: Counter[str] = field(default_factory=Counter)
    headers_ignored: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Groups of messages in the order they are sent; `late` is sent once the month is closed."""

    month: Sequence[Group]
    late: Sequence[Group]
    expected: Expected


def generate(carrier: SampleCarrier, calls: int, seed: int) -> Traffic:
    """About so many call records, `calls_min` at least, and the SIP events that go with them."""
    return _Writer(carrier, seed).write(max(calls, calls_min))


class _Writer:
    """Writes groups, and beside each what it must become."""

    def __init__(self, carrier: SampleCarrier, seed: int) -> None:
        self.carrier = carrier
        self.dice = random.Random(seed)  # noqa: S311 (a sample, not a secret)
        self.expected = Expected()
        self._late = False
        self._written: list[tuple[datetime, Sent]] = []  # records that stand, which a switch may send again
        self._unheard: list[tuple[str, datetime, str]] = []  # calls whose INVITE comes when all is over

    def write(self, calls: int) -> Traffic:
        groups = [story() for story, parts in self._stories() for _ in range(max(2, calls * parts // 10_000))]
        groups += [self._resent() for _ in range(max(2, calls * 150 // 10_000))]
        groups += [self._contradicted() for _ in range(max(2, calls * 20 // 10_000))]
        groups.sort(key=lambda group: group.at)
        self._late = True
        late = [story() for story in self._late_stories() for _ in range(max(2, calls * 10 // 10_000))]
        late += [self._unheard_invite(*each) for each in self._unheard[:2]]
        return Traffic(groups, late, self.expected)

    def _stories(self) -> Iterator[tuple[Callable[[], Group], int]]:
        """Each kind of traffic and its parts in ten thousand."""
        yield self.inbound, 3100
        yield self.inbound_toll_free, 400
        yield self.caller_id_lookup, 500
        yield self.spam_prevention, 300
        yield self.from_dedicated, 1700
        yield self.from_shared, 1500
        yield self.recording, 200
        yield self.international, 250
        yield self.short_duration, 150
        yield self.toll_free, 150
        yield self.emergency, 30
        yield self.on_net, 100
        yield self.invite_first, 350
        yield self.invite_after, 250
        yield self.invite_as_text, 100
        yield self.authentication_retry, 120
        yield self.source_from_invite, 60
        yield self.moved_number, 60
        yield self.newcomer_number, 60
        yield self.spare_number, 60
        yield self.spoofed, 60
        yield self.to_default_tenant, 40
        yield self.without_header, 30
        yield self.unknown_tenant, 30
        yield self.wrong_case, 20
        yield self.before_it_existed, 10
        yield self.unknown_number, 50
        yield self.unknown_ip, 50
        yield self.no_source, 10
        yield self.two_sources, 10
        yield self.last_instant, 1
        yield self.tiny_call, 1
        yield from ((wrong, 8) for wrong in (self.not_json, self.without_id, self.bad_address, self.float_cost))
        yield from ((wrong, 6) for wrong in (self.ends_too_soon, self.wrong_currency, self.too_old, self.unpriced))
        yield self.broken_sip, 5
        yield self.tombstone, 5
        yield self.register, 200
        yield self.within_dialog, 40
        yield self.response, 40

    def _late_stories(self) -> Sequence[Callable[[], Group]]:
        return (self.inbound, self.from_dedicated, self.from_shared, self.invite_first, self.unknown_number, self._resent)
