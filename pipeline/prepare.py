"""From a message's bytes to what is to be written about it: decode, attribute, check, rate. Pure.

Each message becomes one `Item`, but for those that pipeline/ordinary.py takes by the batch. Nothing here knows duplicates,
months' states or the database: that is the posting transaction's (pipeline/writing.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, assert_never

import msgspec

from attribution.attribute import Attributed, Attribution, Held, InputRules, Unattributed, attribute_each
from attribution.direction import direct
from attribution.directory import Directory
from rollup.ledger import Identity, UsageRow, identity_of
from rollup.ledger_rows import Usage, content_ids, usage_rows
from rollup.plausible import implausible
from rollup.rate import Unrated, rate
from rollup.tariffs import Tariffs
from rollup.terms import AccountTerms, unowned
from rollup.unposted import HeldRow, QuarantineRow, RefusedRow
from schemas.columns import CallColumns
from schemas.decoded import Decoded, Ignored, Rejected, Undirected
from schemas.formats import Format, Kind, decoder
from schemas.identity import record_digest
from schemas.network import Address
from schemas.periods import Period
from schemas.records import CallRecord, SipEvent


class Message(msgspec.Struct, frozen=True, gc=False):
    """A Kafka record with what billing needs of it; `received_at` is Kafka's timestamp (never the worker's clock).

    `ordinal`: which of the records it holds is meant, where it holds two (an on-net call that is billed both ways).
    """

    offset: int
    received_at: datetime
    key: bytes | None
    value: bytes | None
    ordinal: int = 0


class SipContextRow(NamedTuple):
    """A SIP event that is kept; fields as columns of `sip_contexts`, in the order they are copied."""

    received_at: datetime
    call_id: str
    observed_at: datetime
    source_ip: Address
    x_tenant: str | None
    cseq: int
    switch: str
    position_id: int
    kafka_offset: int


Outcome = UsageRow | HeldRow | QuarantineRow | RefusedRow | SipContextRow | Ignored


class Item(msgspec.Struct, frozen=True, gc=False):
    """One message and what it came to; `message` is kept so that a record the database refuses can be quarantined."""

    message: Message
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was true up to `as_of`: who owned what, and what it cost."""

    directory: Directory
    tariffs: Tariffs
    terms: Mapping[int, AccountTerms]
    oldest: Period

    @property
    def as_of(self) -> datetime:
        """The instant up to which the snapshot is complete (A7)."""
        return self.directory.as_of


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How one partition's messages are read: which decoder, and which rules hold for its records."""

    position_id: int
    kind: Kind
    format: Format
    rules: InputRules
    sip_wait: timedelta


def decode(spec: InputSpec, messages: Iterable[Message]) -> list[tuple[Message, Decoded]]:
    """Read each message; nothing raises, whatever the bytes. One that holds two records is there twice."""
    read = decoder(spec.kind, spec.format)
    decoded = [(message, read(message.value)) for message in messages]
    if spec.format.on_net != "both":
        return decoded
    return [each for message, what in decoded for each in _both_ways(message, what)]


def decode_one(spec: InputSpec, message: Message) -> tuple[Message, Decoded]:
    """The record that a message's `ordinal` says."""
    decoded = decode(spec, [message])
    return next((each for each in decoded if each[0].ordinal == message.ordinal), decoded[0])


def _both_ways(message: Message, what: Decoded) -> Iterable[tuple[Message, Decoded]]:
    if not isinstance(what, Undirected):
        return [(message, what)]
    return [
        (msgspec.structs.replace(message, ordinal=ordinal), each)
        for ordinal, each in enumerate(what.both_ways())
    ]


def latest_start(decoded: Iterable[tuple[Message, Decoded]]) -> datetime | None:
    """The latest `started_at` of a batch: a snapshot older than that must be refreshed first (A7)."""
    return max(
        (what.started_at for _, what in decoded if isinstance(what, CallRecord | Undirected)), default=None
    )


def prepare(spec: InputSpec, decoded: Iterable[tuple[Message, Decoded]], snapshot: Snapshot) -> list[Item]:
    """What is to be written about each message, in the batch's order."""
    told = [
        (message, _directed(spec, what, snapshot) if isinstance(what, Undirected) else what)
        for message, what in decoded
    ]
    calls = [(message, what) for message, what in told if isinstance(what, CallRecord)]
    attributions = attribute_each(
        CallColumns.of([record for _, record in calls]), snapshot.directory, spec.rules
    )
    outcomes = iter(
        _written(
            [
                _judged(spec, message, record, attribution, snapshot)
                for (message, record), attribution in zip(calls, attributions.each(), strict=True)
            ]
        )
    )
    return [
        Item(message, next(outcomes) if isinstance(what, CallRecord) else _other(spec, message, what))
        for message, what in told
    ]


def _directed(
    spec: InputSpec, what: Undirected, snapshot: Snapshot
) -> CallRecord | SipEvent | Rejected | Ignored:
    """A call whose direction the directory tells gets it; what is held reads it again when it is known."""
    directed = direct(what, snapshot.directory, spec.rules.home_country)
    return what.record if isinstance(directed, Held) else directed


def _other(spec: InputSpec, message: Message, what: SipEvent | Rejected | Ignored) -> Outcome:
    match what:
        case SipEvent():
            return _sip(spec, message, what)
        case Rejected(reason, detail):
            return quarantined(spec.position_id, message, reason, detail)
        case Ignored():
            return what
        case _:
            assert_never(what)


def usage(
    spec: InputSpec,
    message: Message,
    record: CallRecord,
    attribution: Attributed | Unattributed,
    snapshot: Snapshot,
) -> Outcome:
    """The ledger row of a record whose tenant is decided, or why it must not be posted (L6, L8)."""
    return _written([_judged(spec, message, record, attribution, snapshot)])[0]


def _judged(
    spec: InputSpec, message: Message, record: CallRecord, attribution: Attribution, snapshot: Snapshot
) -> Usage | HeldRow | QuarantineRow | RefusedRow:
    """What a call comes to; what the record alone can tell needs no waiting."""
    account_id = attribution.account_id
    terms = terms_of(account_id, spec, snapshot)
    refusal = implausible(record, terms, message.received_at, snapshot.oldest)
    if refusal is not None:
        row = quarantined(
            spec.position_id, message, refusal.reason, refusal.detail, account_id, record.started_at
        )
        return _refused(record, row) if refusal.by_terms else row
    if isinstance(attribution, Held):
        return held_row(spec, message, record, attribution)
    rated = rate(record, terms, snapshot.tariffs)
    if isinstance(rated, Unrated):
        row = quarantined(spec.position_id, message, "unrated", rated.detail, account_id, record.started_at)
        return _refused(record, row)
    return Usage(
        record, attribution, rated, terms.home_country, message.received_at, spec.position_id, message.offset
    )


def _written(judged: Sequence[Usage | HeldRow | QuarantineRow | RefusedRow]) -> list[Outcome]:
    """What calls came to, with the usage among it as rows of the ledger, all at once."""
    rows = iter(usage_rows([each for each in judged if isinstance(each, Usage)]))
    return [next(rows) if isinstance(each, Usage) else each for each in judged]


def _refused(record: CallRecord, row: QuarantineRow) -> RefusedRow:
    """A record that stands in quarantine, because nothing but its owner's terms speaks against it."""
    return RefusedRow(
        identity=_identity(record),
        content=content_ids([record])[0],
        switch=record.switch,
        record_id=record.id,
        started_at=record.started_at,
        position_id=row.position_id,
        kafka_offset=row.kafka_offset,
        detained=row,
    )


def _identity(record: CallRecord) -> Identity:
    return identity_of(record.started_at.date(), record_digest(record.switch, record.id))


def held_row(spec: InputSpec, message: Message, record: CallRecord, held: Held) -> HeldRow:
    """A record that waits: for its instant to come, or for SIP events (A7, A10)."""
    until = record.started_at if held.reason == "clock_ahead" else message.received_at + spec.sip_wait
    assert message.value is not None
    return HeldRow(
        identity=_identity(record),
        content=content_ids([record])[0],
        reason=held.reason,
        hold_until=until,
        call_id=record.call_id,
        switch=record.switch,
        record_id=record.id,
        started_at=record.started_at,
        received_at=message.received_at,
        position_id=spec.position_id,
        kafka_offset=message.offset,
        value=message.value,
        ordinal=message.ordinal,
    )


def _sip(spec: InputSpec, message: Message, event: SipEvent) -> SipContextRow:
    return SipContextRow(
        received_at=message.received_at,
        call_id=event.call_id,
        observed_at=event.observed_at,
        source_ip=event.source_ip,
        x_tenant=event.x_tenant,
        cseq=event.cseq,
        switch=event.switch,
        position_id=spec.position_id,
        kafka_offset=message.offset,
    )


def quarantined(
    position_id: int,
    message: Message,
    reason: str,
    detail: str,
    account_id: int | None = None,
    started_at: datetime | None = None,
) -> QuarantineRow:
    """A message that is kept and not posted."""
    return QuarantineRow(
        position_id=position_id,
        kafka_offset=message.offset,
        ordinal=message.ordinal,
        received_at=message.received_at,
        reason=reason,
        detail=detail or reason,
        account_id=account_id,
        started_at=started_at,
        key=message.key,
        value=message.value,
    )


def terms_of(account_id: int | None, spec: InputSpec, snapshot: Snapshot) -> AccountTerms:
    """An account's terms; for usage that no account owns, those of the input's home country."""
    if account_id is not None:
        return snapshot.terms[account_id]
    return unowned(spec.rules.home_country)
