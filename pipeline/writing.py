"""What of a batch is new, what repeats what stands, and where each record goes: within the caller's transaction (L2).

Rows that are surely new are copied straight into the ledger; those that may be duplicates are looked up, and merged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pipeline.batch_rows import BatchRows, sorted_out
from pipeline.database import sqlstate
from pipeline.ordinary import NOTHING_ORDINARY, OrdinaryUsage
from pipeline.prepare import Item, SipContextRow, quarantined
from pipeline.recent_identities import RecentIdentities
from rollup import posting_store as store
from rollup import standing_store
from rollup.ledger import Identity, UsageColumns, UsageRow, nearby_midnights
from rollup.sums import sums_of
from rollup.unposted import HeldRow, RefusedRow
from schemas.binary import Integers
from schemas.bulk import copy_line, copy_rows
from schemas.columns import rows_at

_UNIQUE_VIOLATION: Final = "23505"


class UncountedError(RuntimeError):
    """Not every record of a batch came to exactly one outcome: a fault of ours, and nothing may be committed."""


class Written(NamedTuple):
    """What one transaction wrote: records by (outcome, reason), and the identities that are in the ledger since."""

    counts: Counter[tuple[str, str]]
    new: NDArray[np.void]


def write(
    connection: Connection,
    shard: int,
    items: Sequence[Item],
    recent: RecentIdentities | None = None,
    ordinary: OrdinaryUsage = NOTHING_ORDINARY,
) -> Written:
    """Write what messages came to within the caller's transaction; counts are returned, not written.

    Of two records with one identity the one that was received first stands (L2).

    Args:
        connection: in a transaction.
        shard: whose monthly usage to add to (L4); for the stream it is the position's id.
        items: what was prepared alone, of messages of one partition.
        recent: identities that are probably in the ledger; None merges every row.
        ordinary: what was prepared by the batch, of the same partition.

    Raises:
        UncountedError: a record came to no outcome, or to two.
    """
    counts: Counter[tuple[str, str]] = Counter()
    rows = sorted_out(items, ordinary, counts)
    _drop_standing(connection, rows, counts)
    new = rows.to_post()
    if len(new):
        store.share_periods(connection)
        posted_to = store.posting_periods(connection)
        new = _post_usage(connection, rows, posted_to, counts, recent)
        store.add_usage(connection, shard, sums_of(rows.usage, new, posted_to))
        counts["posted", ""] += len(new)
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
    records = len(items) + ordinary.usage.records
    if counts.total() != records:
        raise UncountedError(f"{records} records came to {counts.total()} outcomes: {dict(counts)}")
    return Written(+counts, rows.usage.identities[new])


def _judge_repeats(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Judge what the batch itself repeats by what stands: the batch's first, or else what stood before it (L2).

    Where the batch's first is no repeat of what stood, a later one may be: it is looked up.
    """
    asked: dict[tuple[Identity, bytes], bool] = {}
    for place, first in rows.repeats.items():
        same = bool(rows.contents[place] == rows.contents[first])
        if rows.stood[first] == standing_store.OTHER:
            question = rows.identities[place].tobytes(), rows.contents[place].tobytes()
            if question not in asked:
                asked[question] = not same and _stands(connection, rows, place)
            same = asked[question]
        _repeated(rows, place, counts, same=same)


def _stands(connection: Connection, rows: BatchRows, place: int) -> bool:
    """Whether what stands under a record's identity has its content."""
    question = rows.identities[[place]], rows.contents[[place]]
    return any(
        standing_store.standing(connection, table, *question)[0] == standing_store.SAME
        for table in standing_store.LEDGERS
    )


def _repeated(rows: BatchRows, place: int, counts: Counter[tuple[str, str]], *, same: bool) -> None:
    """Judge a record whose identity stands already: the same content changes nothing, another is kept aside (L2)."""
    if same:
        counts["duplicate", ""] += 1
        return
    row, message = rows.told(place)
    account_id = (
        row.payer.account_id
        if isinstance(row, UsageRow)
        else row.detained.account_id
        if isinstance(row, RefusedRow)
        else None
    )
    detail = f"record {row.record_id!r} of {row.switch!r} was received before with other billable content"
    rows.quarantine.append(
        quarantined(row.position_id, message, "conflicting_duplicate", detail, account_id, row.started_at)
    )


def _drop_standing(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """A record that waits stands, and one that lacks only a tariff: what comes later under its identity repeats it."""
    if not len(rows.identities):
        return
    unposted = standing_store.standing_unposted(connection, len(rows.identities))
    if unposted is None:
        firsts = np.setdiff1d(np.arange(len(rows.identities)), list(rows.repeats))
    else:
        firsts = rows.places_of(unposted)
    _drop_known(connection, "standing_records", rows, firsts, counts)


def _drop_known(
    connection: Connection,
    table: standing_store.Ledger,
    rows: BatchRows,
    places: Integers,
    counts: Counter[tuple[str, str]],
) -> Integers:
    """Look some of the batch's firsts up: those that stand repeat it. Returns the places of those that do not."""
    stands = standing_store.standing(connection, table, rows.identities[places], rows.contents[places])
    _drop(rows, places[stands == standing_store.SAME], counts, same=True)
    _drop(rows, places[stands == standing_store.OTHER], counts, same=False)
    unknown: Integers = places[stands == standing_store.NOTHING]
    return unknown


def _drop(rows: BatchRows, places: Integers, counts: Counter[tuple[str, str]], *, same: bool) -> None:
    """Some of the batch's firsts repeat what stood before them, with the same content or another."""
    rows.stood[places] = standing_store.SAME if same else standing_store.OTHER
    if same:
        counts["duplicate", ""] += len(places)
        return
    for place in places.tolist():
        _repeated(rows, place, counts, same=False)


def _post_usage(
    connection: Connection,
    rows: BatchRows,
    posted_to: Mapping[date, date],
    counts: Counter[tuple[str, str]],
    recent: RecentIdentities | None,
) -> Integers:
    """Post what is new; returns the places of it.

    What is surely new is copied straight into the ledger; where that meets a record after all, it is merged. Either is
    sorted, so that writers of the same records never deadlock.
    """
    usage, asked = rows.usage, rows.to_post()
    midnight = rows_at(usage, asked[nearby_midnights(usage.started[asked])])
    over_midnight = standing_store.claim_midnights(connection, midnight.rows())
    _drop(rows, rows.places_of(over_midnight), counts, same=False)
    asked = rows.to_post()
    suspects, replaying = asked, recent is not None and recent.replaying
    if recent is not None and not replaying:
        suspects = asked[recent.known(usage.identities[asked])]
    unknown = _drop_known(connection, "usage_records", rows, suspects, counts)
    new = rows.to_post()
    if recent is not None and not recent.doubtful and _copied(connection, usage, new, posted_to):
        return new
    met = rows.places_of(store.merge_usage(connection, usage, new, posted_to))
    gone = _drop_known(connection, "usage_records", rows, met, counts)
    if len(gone):
        raise UncountedError(f"{len(gone)} records were met in the ledger, and then not found there")
    if recent is not None:
        stood = len(suspects) - len(unknown) if replaying else 0
        recent.surprised(stood + len(met), of=len(asked))
    return rows.to_post()


def _copied(
    connection: Connection, usage: UsageColumns, places: Integers, posted_to: Mapping[date, date]
) -> bool:
    """Copy rows that are believed to be new; False, and nothing written, where one was not.

    Raises:
        DBAPIError: the database refuses them for another reason.
    """
    if not len(places):
        return True
    try:
        with connection.begin_nested():
            store.copy_usage(connection, usage, places, posted_to)
    except DBAPIError as error:
        if sqlstate(error) != _UNIQUE_VIOLATION:
            raise
        return False
    return True


def _hold(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Hold what is not known yet: neither in the ledger, nor waiting already, nor on the other side of midnight."""
    asked = rows.left(HeldRow)
    if not asked:
        return
    _drop_known(connection, "usage_records", rows, np.array(list(asked)), counts)
    fresh = rows.left(HeldRow)
    over_midnight = standing_store.claim_midnights(connection, list(fresh.values()))
    _drop(rows, rows.places_of(over_midnight), counts, same=False)
    fresh = rows.left(HeldRow)
    held = store.hold(connection, list(fresh.values()))
    waiting = [place for place, row in fresh.items() if row.identity not in held]
    gone = _drop_known(connection, "standing_records", rows, np.array(waiting, dtype=np.int64), counts)
    _drop(rows, gone, counts, same=False)
    for row in rows.left(HeldRow).values():
        counts["held", row.reason] += 1


def _refuse(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Quarantine what its owner's terms refuse, unless it stands already: then it is only repeated (L2)."""
    asked = rows.left(RefusedRow)
    if not asked:
        return
    _drop_known(connection, "usage_records", rows, np.array(list(asked)), counts)
    over_midnight = standing_store.claim_midnights(connection, list(rows.left(RefusedRow).values()))
    _drop(rows, rows.places_of(over_midnight), counts, same=False)
    rows.quarantine.extend(row.kept for row in rows.left(RefusedRow).values())
