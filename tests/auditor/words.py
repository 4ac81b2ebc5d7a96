"""The words the auditor is spoken to in, and answers in: plain lists of plain facts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

US_REGIONS: Final = frozenset({"US", "PR", "VI", "GU", "AS", "MP"})  # L9
FOR_GOOD: Final = datetime(9999, 1, 1, tzinfo=UTC)
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Account:
    code: str
    currency: str = "USD"
    home_country: str = "US"
    domestic_regions: frozenset[str] = US_REGIONS


@dataclass(frozen=True)
class Tenant:
    account: str
    code: str
    made_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Number:
    """A number (E.164) is an account's in [made_at, ended_at), and a tenant's unless `tenant` is None."""

    number: str
    account: str
    tenant: str | None
    made_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Ip:
    """A network (CIDR) is dedicated to `tenant`, or shared with an optional `default_tenant`."""

    network: str
    account: str
    tenant: str | None
    default_tenant: str | None
    made_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Tariff:
    account: str
    usage_class: str
    cost: Decimal
    unit: str = "minute"
    prefix: str = ""
    effective_at: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    first_seconds: int = 1
    next_seconds: int = 1


@dataclass(frozen=True)
class Input:
    topic: str
    kind: str  # "calls" or "sip"
    sip_context: bool = True
    edge_addresses: frozenset[str] = frozenset()
    home_country: str = "US"


@dataclass(frozen=True)
class Carrier:
    """All that was true, with its history. `oldest_month` is the ledger's first (`2026-09`)."""

    accounts: Sequence[Account] = ()
    tenants: Sequence[Tenant] = ()
    numbers: Sequence[Number] = ()
    ips: Sequence[Ip] = ()
    tariffs: Sequence[Tariff] = ()
    inputs: Sequence[Input] = (Input("calls.raw", "calls"), Input("sip.raw", "sip"))
    oldest_month: str = "2026-01"
    sip_wait: timedelta = timedelta(minutes=5)


@dataclass(frozen=True)
class Received:
    """One Kafka record; `value` is the message as bytes, or what its JSON says; None is a tombstone."""

    topic: str
    received_at: datetime
    value: bytes | Mapping[str, Any] | None


@dataclass(frozen=True)
class Sealed:
    """From here on the month (`2026-10`) takes no rows."""

    month: str


@dataclass(frozen=True)
class Verdict:
    """What one message became; the fields after `reason` are set where it was posted.

    `attribution` says why a posted record has no tenant, or is empty.
    """

    outcome: str
    reason: str = ""
    period: str = ""
    usage_month: str = ""
    account: str | None = None
    tenant: str | None = None
    attribution: str = ""
    header_ignored: str | None = None
    usage_class: str = ""
    answered: bool = False
    answered_seconds: Decimal = Decimal(0)
    billed_seconds: int = 0
    cost: Decimal = Decimal(0)
    currency: str = ""


@dataclass(frozen=True)
class Group:
    period: str
    usage_month: str
    account: str | None
    tenant: str | None
    usage_class: str
    currency: str


@dataclass(frozen=True)
class Sums:
    attempts: int
    calls: int
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal


@dataclass
class Report:
    verdicts: list[Verdict] = field(default_factory=list)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """How many messages came to each outcome and reason (DESIGN 8)."""
        return dict(Counter((each.outcome, each.reason) for each in self.verdicts))

    def totals(self) -> dict[Group, Sums]:
        """Sums of what was posted, by group."""
        groups: dict[Group, list[Verdict]] = defaultdict(list)
        for each in self.verdicts:
            if each.outcome == "posted":
                owner = (each.account, each.tenant, each.usage_class, each.currency)
                groups[Group(each.period, each.usage_month, *owner)].append(each)
        return {group: sums_of(members) for group, members in groups.items()}


@dataclass(frozen=True)
class Invite:
    received_at: datetime
    observed_at: datetime
    source_ip: Address
    call_id: str
    cseq: int
    x_tenant: str | None


@dataclass(frozen=True)
class Owner:
    account: str | None
    tenant: str | None
    attribution: str = ""
    header_ignored: str | None = None


def in_force(each: Tenant | Number | Ip, at: datetime) -> bool:
    return each.made_at <= at and (each.ended_at is None or at < each.ended_at)


def month_of(at: datetime) -> str:
    return at.strftime("%Y-%m")


def month_edges(month: str) -> tuple[datetime, datetime]:
    begins = datetime.fromisoformat(f"{month}-01T00:00:00+00:00")
    return begins, (begins + timedelta(days=32)).replace(day=1)


def sums_of(members: Sequence[Verdict]) -> Sums:
    return Sums(
        len(members),
        sum(each.answered for each in members),
        sum((each.answered_seconds for each in members), Decimal(0)),
        sum(each.billed_seconds for each in members),
        sum((each.cost for each in members), Decimal(0)),
    )
