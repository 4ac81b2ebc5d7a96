"""How usage is written into the ledger: calls by the batch, column by column, as rows that are ready to be copied.

A call at a time would cost many times as much (deploy/decisions/0013). Every column is one expression over the batch;
what a row holds, and in which order, is `LEDGER_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
import numpy as np

from rollup.ledger import (
    CONTENT_BYTES,
    IDENTITY_BYTES,
    IDENTITY_FIELDS,
    Payer,
    Standing,
    UsageColumns,
    UsageRow,
)
from rollup.rate import Rated
from schemas.amounts import amount_of
from schemas.binary import (
    DAY_MICROSECONDS,
    Integers,
    as_bytes,
    binary_address,
    binary_bigint,
    binary_instants,
    binary_int,
    binary_numerics,
    binary_text,
    binary_texts,
    microseconds_each,
)
from schemas.columns import CallColumns
from schemas.identity import digests, record_digests
from schemas.memo import Memo
from schemas.numbers import dialled_each
from schemas.records import CallRecord

# The columns of a ledger row but for its posting period, in the order of `UsageRow.line`.
LEDGER_COLUMNS: Final = (
    *("started_date", "key", "content"),
    *("account_id", "tenant_id", "rule", "reason", "assignment_id", "header_ignored"),
    *("usage_class", "tariff_id", "currency"),
    *("switch", "service", "direction"),
    *("record_id", "call_id", "from_number", "to_number", "source_ip", "x_tenant"),
    *("started_at", "answered_at", "ended_at"),
    *("answered", "answered_seconds", "billed_seconds", "cost"),
    *("received_at", "position_id", "kafka_offset"),
)
# Columns of a fixed width, each with its length before it.
_HEAD: Final = np.dtype(
    [
        *(("date_length", ">i4"), ("date", ">i4")),
        *(("key_length", ">i4"), ("key", "V16")),
        *(("content_length", ">i4"), ("content", "V16")),
    ]
)
_AMOUNTS: Final = np.dtype(
    [
        *(("answered_length", ">i4"), ("answered", "u1")),
        ("answered_seconds", binary_numerics(np.empty(0, dtype=np.int64)).dtype),
        *(("billed_length", ">i4"), ("billed", ">i4")),
        ("cost", binary_numerics(np.empty(0, dtype=np.int64)).dtype),
        *(("received_length", ">i4"), ("received", ">i8")),
        *(("position_length", ">i4"), ("position", ">i4")),
        *(("offset_length", ">i4"), ("offset", ">i8")),
    ]
)


class Decisions(NamedTuple):
    """What was decided about calls, by column, and where each was received.

    `payers`: as `PAYERS` has them, each with the fields of its row. `home_countries`: whose dialling rules hold.
    `answered_millionths`, `billed_seconds`, `cost_millionths`: what enters the ledger.
    `received`: Kafka's timestamps, in microseconds since `schemas.binary.EPOCH`.
    """

    payers: Sequence[tuple[Payer, bytes]]
    home_countries: Sequence[str]
    answered: Sequence[bool]
    answered_millionths: Integers
    billed_seconds: Integers
    cost_millionths: Integers
    received: Integers
    position_ids: Integers
    kafka_offsets: Integers


class Usage(msgspec.Struct, frozen=True, gc=False):
    """A record with all that was decided about it, and where it was received.

    `home_country` is that of its dialling rules; `received_at` is Kafka's timestamp.
    """

    record: CallRecord
    standing: Standing
    rated: Rated
    home_country: str
    received_at: datetime
    position_id: int
    kafka_offset: int


def usage_rows(usages: Sequence[Usage]) -> list[UsageRow]:
    """The ledger row of each record whose tenant and cost are decided."""
    if not usages:
        return []
    rated = [each.rated for each in usages]
    columns = usage_columns(
        CallColumns.of([each.record for each in usages]),
        Decisions(
            PAYERS.each(
                (each.standing, each.rated.usage_class, each.rated.tariff_id, each.rated.currency)
                for each in usages
            ),
            [each.home_country for each in usages],
            [each.answered for each in rated],
            _integers([amount_of(each.answered_seconds).millionths for each in rated]),
            _integers([each.billed_seconds for each in rated]),
            _integers([amount_of(each.cost).millionths for each in rated]),
            microseconds_each([each.received_at for each in usages]),
            _integers([each.position_id for each in usages]),
            _integers([each.kafka_offset for each in usages]),
        ),
    )
    return [columns.row(place) for place in range(len(usages))]


def usage_columns(calls: CallColumns, decisions: Decisions) -> UsageColumns:
    """The ledger rows of calls whose tenant and cost are decided."""
    parts, days = _parts(calls), calls.started // DAY_MICROSECONDS
    keys = record_digests(zip(calls.switches, calls.ids, strict=True))
    contents = np.frombuffer(b"".join(_contents(calls, parts)), dtype=CONTENT_BYTES)
    head = np.empty(calls.records, dtype=_HEAD)
    head["date_length"], head["key_length"], head["content_length"] = 4, 16, 16
    head["date"] = days
    head["key"] = np.frombuffer(b"".join(keys), dtype=_HEAD["key"])
    head["content"] = contents
    fields = zip(
        as_bytes(head),
        [columns for _, columns in decisions.payers],
        parts.kinds,
        binary_texts(calls.ids),
        parts.call_ids,
        binary_texts(calls.from_numbers),
        binary_texts(dialled_each(calls.to_numbers, decisions.home_countries)),
        parts.sources,
        parts.names,
        parts.instants,
        as_bytes(_amounts(decisions)),
        strict=True,
    )
    return UsageColumns(
        head[["date", "key"]].astype(IDENTITY_FIELDS).view(IDENTITY_BYTES),
        contents,
        [each for each, _ in decisions.payers],
        np.array(decisions.answered, dtype=np.bool_),
        decisions.answered_millionths,
        decisions.billed_seconds,
        decisions.cost_millionths,
        calls.started,
        calls.switches,
        calls.ids,
        decisions.position_ids,
        decisions.kafka_offsets,
        list(map(b"".join, fields)),
    )


def _payer(decided: tuple[Standing, str, int | None, str]) -> tuple[Payer, bytes]:
    standing, usage_class, tariff_id, currency = decided
    columns = (
        binary_bigint(standing.account_id),
        binary_bigint(standing.tenant_id),
        binary_text(standing.rule),
        binary_text(standing.reason),
        binary_bigint(standing.assignment_id),
        binary_text(standing.header_ignored),
        binary_text(usage_class),
        binary_bigint(tariff_id),
        binary_text(currency),
    )
    return Payer(standing.account_id, standing.tenant_id, usage_class, currency), b"".join(columns)


PAYERS: Final = Memo(_payer)
"""Who pays, and the columns from `account_id` to `currency`, by standing, class, tariff and currency."""


def content_ids(records: Sequence[CallRecord]) -> list[bytes]:
    """A hash of what matters of each record for attribution, class, quantity and cost: nothing else makes it another (L2)."""
    return content_columns(CallColumns.of(records))


def content_columns(calls: CallColumns) -> list[bytes]:
    """`content_ids` of calls by column."""
    return _contents(calls, _parts(calls))


class _Parts(NamedTuple):
    """Fields that stand in a row as the switch sent them, and that make a record what it is."""

    kinds: Sequence[bytes]
    call_ids: Sequence[bytes]
    sources: Sequence[bytes]
    names: Sequence[bytes]
    instants: Sequence[bytes]


def _parts(calls: CallColumns) -> _Parts:
    return _Parts(
        _KINDS.each(zip(calls.switches, calls.services, calls.directions, strict=True)),
        binary_texts(calls.call_ids),
        _SOURCES.each(calls.sources),
        _NAMES.each(calls.names),
        binary_instants(calls.started, calls.answered, calls.ended),
    )


def _contents(calls: CallColumns, parts: _Parts) -> list[bytes]:
    """Each part has its length before it, so no two different lists of parts read alike."""
    facts = zip(
        parts.kinds,
        parts.call_ids,
        binary_texts(calls.to_numbers),
        parts.sources,
        parts.names,
        parts.instants,
        [each.exact for each in calls.answered_seconds],
        _WHOLES.each(calls.billed_seconds),
        [each.exact for each in calls.costs],
        _CURRENCIES.each(calls.currencies),
        strict=True,
    )
    return digests(map(b"".join, facts))


def _amounts(decisions: Decisions) -> np.ndarray:
    fields = np.empty(len(decisions.received), dtype=_AMOUNTS)
    fields["answered_length"], fields["billed_length"], fields["position_length"] = 1, 4, 4
    fields["received_length"] = fields["offset_length"] = 8
    fields["answered"] = decisions.answered
    fields["answered_seconds"] = binary_numerics(decisions.answered_millionths)
    fields["billed"] = decisions.billed_seconds
    fields["cost"] = binary_numerics(decisions.cost_millionths)
    fields["received"] = decisions.received
    fields["position"] = decisions.position_ids
    fields["offset"] = decisions.kafka_offsets
    return fields


def _integers(column: Sequence[int]) -> Integers:
    return np.array(column, dtype=np.int64)


def _kind(named: tuple[str, str, str]) -> bytes:
    switch, service, direction = named
    return binary_text(switch) + binary_text(service) + binary_text(direction)


def _name(header: str | None) -> bytes:
    """Postgres stores every character but NUL, which stands there as JSON writes it; an empty header is none."""
    return binary_text(header.replace("\0", "\\u0000") if header else None)


_KINDS: Final = Memo(_kind, 4096)
_SOURCES: Final = Memo(binary_address)
_NAMES: Final = Memo(_name)
_WHOLES: Final = Memo(binary_int)
_CURRENCIES: Final = Memo(binary_text, 4096)
