"""What of a batch is new, what repeats what stands, and where each record goes: within the caller's transaction (L2).

Rows that are surely new are copied straight into the ledger; those that may be duplicates are looked up, and merged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from operator import attrgetter
from typing import Final, NamedTuple, assert_never

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pipeline.database import sqlstate
from pipeline.prepare import Item, Message, SipContextRow, quarantined
from rollup import posting_store as store
from rollup import standing_store
from rollup.ledger import Identity, UsageRow, sums_of
from rollup.unposted import Asked, HeldRow, QuarantineRow, RefusedRow
from schemas.bulk import copy_line, copy_rows
from schemas.decoded import Ignored

_UNIQUE_VIOLATION: Final = "23505"
recent_identities_max: Final = 400_000


class Written(NamedTuple):
    """What one transaction wrote: records by (outcome, reason), and the identities that are in the ledger since."""

    counts: Counter[tuple[str, str]]
    new: list[Identity]


class Told(NamedTuple):
    """A record and the message that told it."""

    row: Asked
    message: Message


class BatchRows(NamedTuple):
    """A batch by what is to be done with it.

    `first`: the batch's first record under each identity, with its message: in `usage`, `held` or `refused` until it turns
    out to repeat what stands. `repeats`: those that came later under one. `stood`: identities that stood before, and whether with
    the content of the first.
    """

    usage: dict[Identity, UsageRow]
    held: dict[Identity, HeldRow]
    refused: dict[Identity, RefusedRow]
    first: dict[Identity, Told]
    repeats: list[Told]
    stood: dict[Identity, bool]
    quarantine: list[QuarantineRow]
    contexts: list[SipContextRow]


def write(
    connection: Connection, shard: int, items: Sequence[Item], recent: RecentIdentities | None = None
) -> Written:
    """Write items within the caller's transaction; counts are returned, not written.

    Args:
        connection: in a transaction.
        shard: whose monthly usage to add to (L4); for the stream it is the position's id.
        items: in the order they were received: of two with one identity the first stands (L2).
        recent: identities that are probably in the ledger; None merges every row.
    """
    counts: Counter[tuple[str, str]] = Counter()
    rows = sorted_out(items, counts)
    _drop_standing(connection, rows, counts)
    if rows.usage:
        store.share_periods(connection)
        posted_to = store.posting_periods(connection)
        new = _post_usage(connection, rows, posted_to, counts, recent)
        store.add_usage(connection, shard, sums_of(new, posted_to))
        counts["posted", ""] += len(new)
    else:
        new = []
    _hold(connection, rows, counts)
    _refuse(connection, rows, counts)
    _judge_repeats(connection, rows, counts)
    rows.quarantine.sort(
        key=attrgetter("kafka_offset")
    )  # a replay takes them in the order they were received
    store.quarantine(connection, rows.quarantine)
    for row in rows.quarantine:
        counts["quarantined", row.reason] += 1
    copy_rows(connection, "sip_contexts", SipContextRow._fields, map(copy_line, rows.contexts))
    counts["context", ""] += len(rows.contexts)
    return Written(+counts, [row.identity for row in new])


def sorted_out(items: Sequence[Item], counts: Counter[tuple[str, str]]) -> BatchRows:
    """A batch by what is to be done with each record; what needs no more than counting is counted."""
    rows = BatchRows({}, {}, {}, {}, [], {}, [], [])
    usage, held, refused, first = rows.usage, rows.held, rows.refused, rows.first
    for item in items:
        outcome = item.outcome
        match outcome:
            case UsageRow() | HeldRow() | RefusedRow():
                identity = outcome.identity
                if identity in first:
                    rows.repeats.append(Told(outcome, item.message))
                    continue
                first[identity] = Told(outcome, item.message)
                if isinstance(outcome, UsageRow):
                    usage[identity] = outcome
                elif isinstance(outcome, HeldRow):
                    held[identity] = outcome
                else:
                    refused[identity] = outcome
            case QuarantineRow():
                rows.quarantine.append(outcome)
            case SipContextRow():
                rows.contexts.append(outcome)
            case Ignored(reason):
                counts["ignored", reason] += 1
            case _:
                assert_never(outcome)
    return rows


def _judge_repeats(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Judge what the batch itself repeats by what stands: the batch's first, or else what stood before it (L2).

    Where the batch's first is no repeat of what stood, a later one may be: it is looked up.
    """
    asked: dict[tuple[Identity, bytes], bool] = {}
    for told in rows.repeats:
        identity, content = told.row.identity, told.row.content
        same = rows.first[identity].row.content == content
        if rows.stood.get(identity) is False:
            if (identity, content) not in asked:
                asked[identity, content] = not same and _stands(connection, told.row)
            same = asked[identity, content]
        _repeated(told, rows, counts, same=same)


def _stands(connection: Connection, row: Asked) -> bool:
    """Whether what stands under a record's identity has its content."""
    return any(
        standing_store.standing(connection, table, [row]).get(row.identity, False)
        for table in standing_store.LEDGERS
    )


def _repeated(told: Told, rows: BatchRows, counts: Counter[tuple[str, str]], *, same: bool) -> None:
    """Judge a record whose identity stands already: the same content changes nothing, another is kept aside (L2)."""
    row = told.row
    if same:
        counts["duplicate", ""] += 1
        return
    account_id = (
        row.payer.account_id
        if isinstance(row, UsageRow)
        else row.detained.account_id
        if isinstance(row, RefusedRow)
        else None
    )
    detail = f"record {row.record_id!r} of {row.switch!r} was received before with other billable content"
    rows.quarantine.append(
        quarantined(
            row.position_id, told.message, "conflicting_duplicate", detail, account_id, row.started_at
        )
    )


def _drop_standing(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """A record that waits stands, and one that lacks only a tariff: what comes later under its identity repeats it."""
    if not rows.first:
        return
    unposted = standing_store.standing_unposted(connection, len(rows.first))
    asked: list[Asked] = [*rows.usage.values(), *rows.held.values(), *rows.refused.values()]
    suspects = asked if unposted is None else [row for row in asked if row.identity in unposted]
    _drop(standing_store.standing(connection, "standing_records", suspects), rows, counts)


def _drop(standing: Mapping[Identity, bool], rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Take records out that stand already, with the same content or another."""
    for identity, same in standing.items():
        for kind in (rows.usage, rows.held, rows.refused):
            kind.pop(identity, None)
        _note(identity, rows, counts, same=same)


def _note(identity: Identity, rows: BatchRows, counts: Counter[tuple[str, str]], *, same: bool) -> None:
    """The batch's first under an identity repeats what stood before it."""
    rows.stood[identity] = same
    _repeated(rows.first[identity], rows, counts, same=same)


def _post_usage(
    connection: Connection,
    rows: BatchRows,
    posted_to: Mapping[date, date],
    counts: Counter[tuple[str, str]],
    recent: RecentIdentities | None,
) -> list[UsageRow]:
    """Post what is new; returns it.

    What is surely new is copied straight into the ledger; where that meets a record after all, it is merged. Either is
    sorted, so that writers of the same records never deadlock.
    """
    over_midnight = standing_store.claim_midnights(connection, list(rows.usage.values()))
    _drop(dict.fromkeys(over_midnight, False), rows, counts)
    ordered = [rows.usage[identity] for identity in sorted(rows.usage)]
    known = standing_store.standing(
        connection, "usage_records", ordered if recent is None else recent.suspects(ordered)
    )
    _drop(known, rows, counts)
    new = [row for row in ordered if row.identity not in known] if known else ordered
    if recent is not None and not recent.doubtful and _copied(connection, new, posted_to):
        return new
    met = store.merge_usage(connection, new, posted_to)
    _drop(
        standing_store.standing(connection, "usage_records", [rows.usage[each] for each in met]), rows, counts
    )
    if recent is not None:
        recent.doubtful = bool(known or met)
    return [row for row in new if row.identity not in met]


def _copied(connection: Connection, rows: Sequence[UsageRow], posted_to: Mapping[date, date]) -> bool:
    """Copy rows that are believed to be new; False, and nothing written, where one was not.

    Raises:
        DBAPIError: the database refuses them for another reason.
    """
    if not rows:
        return True
    try:
        with connection.begin_nested():
            store.copy_usage(connection, rows, posted_to)
    except DBAPIError as error:
        if sqlstate(error) != _UNIQUE_VIOLATION:
            raise
        return False
    return True


def _hold(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Hold what is not known yet: neither in the ledger, nor waiting already, nor on the other side of midnight."""
    if not rows.held:
        return
    known = standing_store.standing(connection, "usage_records", list(rows.held.values()))
    fresh = [row for identity, row in sorted(rows.held.items()) if identity not in known]
    over_midnight = standing_store.claim_midnights(connection, fresh)
    held = store.hold(connection, [row for row in fresh if row.identity not in over_midnight])
    waiting = [row for row in fresh if row.identity not in held and row.identity not in over_midnight]
    known |= standing_store.standing(connection, "standing_records", waiting)
    for identity, row in rows.held.items():
        if identity in held:
            counts["held", row.reason] += 1
        else:
            _note(identity, rows, counts, same=known.get(identity, False))


def _refuse(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Quarantine what its owner's terms refuse, unless it stands already: then it is only repeated (L2)."""
    if not rows.refused:
        return
    _drop(standing_store.standing(connection, "usage_records", list(rows.refused.values())), rows, counts)
    over_midnight = standing_store.claim_midnights(connection, list(rows.refused.values()))
    _drop(dict.fromkeys(over_midnight, False), rows, counts)
    rows.quarantine.extend(row.kept for row in rows.refused.values())


class RecentIdentities:
    """A bounded memory of identities posted lately: what it knows is probably a duplicate, and is looked up.

    Two generations of a set, so that forgetting costs nothing; what it has forgotten the unique index still stops.
    `doubtful`: it has just been surprised (a replay, a restart, resends that reach another worker), so everything is
    looked up and merged until nothing is met.
    """

    def __init__(self, size_max: int = recent_identities_max) -> None:
        self._size_max = size_max // 2
        self._new: set[Identity] = set()
        self._old: set[Identity] = set()
        self.doubtful = False

    def suspects(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        """Those of some rows that are probably in the ledger."""
        if self.doubtful:
            return list(rows)
        new, old = self._new, self._old
        return [row for row in rows if row.identity in new or row.identity in old]

    def add(self, identities: Iterable[Identity]) -> None:
        """Remember identities that have been committed."""
        self._new.update(identities)
        if len(self._new) > self._size_max:
            self._old, self._new = self._new, set()
