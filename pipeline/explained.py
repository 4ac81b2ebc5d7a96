"""What the explanation of one record holds: the columns and the JSON of `tenant-billing explain`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from attribution.explain_store import AssetEntry
from rollup.explain_store import TopicRead


class Received(NamedTuple):
    """Where and when Kafka received a record."""

    topic: str
    partition: int
    offset: int
    received_at: datetime


class Said(NamedTuple):
    """What the switch said, as far as it decides; `started_at` is the instant (A1)."""

    switch: str
    id: str
    service: str
    direction: str
    started_at: datetime
    from_number: str | None
    to_number: str | None
    source_ip: str | None
    x_tenant: str | None
    call_id: str | None


class Whose(NamedTuple):
    """Whose a record is and by which rule. `header`: the X-Tenant that was read, `header_from` where."""

    account: str | None
    tenant: str | None
    rule: str
    rule_says: str
    reason: str | None
    reason_says: str | None
    header: str | None
    header_from: str | None
    header_ignored: str | None
    near_match: str | None


class SipEventUsed(NamedTuple):
    """The SIP event that spoke for a call (A10), and how many counted."""

    topic: str
    partition: int
    offset: int
    received_at: datetime
    observed_at: datetime
    source_ip: str
    x_tenant: str | None
    cseq: int
    counting: int


class Amounts(NamedTuple):
    """Class, quantities and cost, each with its reason; the tariff where one was used."""

    usage_class: str
    class_says: str
    answered_seconds: Decimal
    billed_seconds: int
    billed_says: str
    cost: Decimal
    currency: str
    cost_says: str
    tariff_id: int | None
    tariff_prefix: str | None
    tariff_increments: str | None
    tariff_effective_at: datetime | None
    tariff_made_at: datetime | None


class Posting(NamedTuple):
    """The month a record was posted to, and the statement that shows it once there is one."""

    posted_to: str
    usage_month: str
    late: bool
    period_says: str
    state: str
    statement_id: str | None


class Waits(NamedTuple):
    """What a held record waits for (A7, A10)."""

    reason: str
    waits_for: str
    hold_until: datetime
    counting_events: int
    sip_read: tuple[TopicRead, ...]


class Kept(NamedTuple):
    """Why a record is in quarantine, what became of it, and how to try again."""

    quarantine_id: int
    reason: str
    detail: str
    state: str
    resolved_at: datetime | None
    resolution: str | None
    to_replay: str | None


@dataclass(frozen=True, slots=True)
class Explained:
    """One record: received, and posted, held or quarantined. What does not apply is None."""

    outcome: str
    received: Received
    record: Said | None
    whose: Whose | None = None
    sip_event: SipEventUsed | None = None
    assignment: AssetEntry | None = None
    asset_history: tuple[AssetEntry, ...] = ()
    usage: Amounts | None = None
    posting: Posting | None = None
    waits: Waits | None = None
    quarantine: Kept | None = None
    notes: tuple[str, ...] = ()
