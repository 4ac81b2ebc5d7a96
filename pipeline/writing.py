"""What of a batch is new, what repeats what stands, and where each record goes: within the caller's transaction (L2).

Rows that are surely new are copied straight into the ledger; those that may be duplicates are looked up, and merged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from pipeline.batch_rows import BatchRows, Part, sorted_out
from pipeline.prepare import SipContextRow, quarantined
from pipeline.recent_identities import RecentIdentities
from rollup import posting_store as store
from rollup import standing_store
from rollup.ledger import Identity, UsageRow, nearby_midnights
from rollup.posting_store import Counted
from rollup.sums import sums_of
from rollup.unposted import HeldRow, RefusedRow
from schemas.binary import Integers
from schemas.bulk import copy_line, copy_rows


class UncountedError(RuntimeError):
    """Not every record of a batch came to exactly one outcome: a fault of ours, and nothing may be committed."""


class Written(NamedTuple):
    """What one transaction wrote: how many records came to what, and the identities that are in the ledger since."""

    counts: Counter[Counted]
    new: NDArray[np.void]


def write(
    connection: Connection,
    parts: Sequence[Part],
    recent: RecentIdentities | None = None,
    shard: int | None = None,
    *,
    merge: bool = False,
) -> Written:
    """Write what messages came to within the caller's transaction; counts are returned, not written.

    Of two records with one identity the one that was received first stands (L2); see `sorted_out`.

    Args:
        connection: in a transaction.
        parts: what messages came to, each partition's in one part.
        recent: identities that are probably in the ledger; None merges every row.
        shard: whose monthly usage to add to (L4); None, as for the stream, for that of the lowest position:
            whoever writes it has moved that position in this transaction, so that nobody else does.
        merge: merge every row that is not known to be in the ledger, because copying them has met one that is.

    Raises:
        UncountedError: a record came to no outcome, or to two.
        DBAPIError: what was copied is in the ledger (a unique violation), or the database refuses it for another reason.
    """
    rows = sorted_out(parts)
    _drop_standing(connection, rows)
    _claim_midnights(connection, rows)
    new = rows.to_post()
    if len(new):
        posted_to = store.posting_periods(connection)
        new = _post_usage(connection, rows, posted_to, recent, merge=merge)
        whose = min(part.position_id for part in parts) if shard is None else shard
        store.add_usage(connection, whose, sums_of(rows.usage, new, posted_to))
        rows.count(rows.positions[new], "posted")
    _hold(connection, rows)
    _refuse(connection, rows)
    _judge_repeats(connection, rows)
    # a replay takes them in the order they were received
    store.quarantine(connection, sorted(rows.quarantine, key=lambda row: (row.position_id, row.kafka_offset)))
    rows.counts.update(Counted(row.position_id, "quarantined", row.reason) for row in rows.quarantine)
    copy_rows(connection, "sip_contexts", SipContextRow._fields, map(copy_line, rows.contexts))
    rows.counts.update(Counted(row.position_id, "context", "") for row in rows.contexts)
    records = sum(part.records for part in parts)
    if rows.counts.total() != records:
        raise UncountedError(f"{records} records came to {rows.counts.total()} outcomes: {dict(rows.counts)}")
    return Written(rows.counts, rows.usage.identities[new])


def _judge_repeats(connection: Connection, rows: BatchRows) -> None:
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
        _repeated(rows, place, same=same)


def _stands(connection: Connection, rows: BatchRows, place: int) -> bool:
    """Whether what stands under a record's identity has its content."""
    question = rows.identities[[place]], rows.contents[[place]]
    return any(
        standing_store.standing(connection, table, *question)[0] == standing_store.SAME
        for table in standing_store.LEDGERS
    )


def _repeated(rows: BatchRows, place: int, *, same: bool) -> None:
    """Judge a record whose identity stands already: the same content changes nothing, another is kept aside (L2)."""
    if same:
        rows.counts[Counted(int(rows.positions[place]), "duplicate", "")] += 1
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


def _drop_standing(connection: Connection, rows: BatchRows) -> None:
    """A record that waits stands, and one that lacks only a tariff: what comes later under its identity repeats it."""
    if not len(rows.identities):
        return
    unposted = standing_store.standing_unposted(connection, len(rows.identities))
    if unposted is None:
        firsts = np.setdiff1d(np.arange(len(rows.identities)), list(rows.repeats))
    else:
        firsts = rows.places_of(unposted)
    _drop_known(connection, "standing_records", rows, firsts)


def _claim_midnights(connection: Connection, rows: BatchRows) -> None:
    """What is near a midnight claims it, as it was received; what the other date has claimed before is dropped (L1)."""
    posted = rows.to_post()
    near = posted[nearby_midnights(rows.usage.started[posted])].tolist()
    received = rows.as_received([*near, *rows.left(HeldRow), *rows.left(RefusedRow)])
    over_midnight = standing_store.claim_midnights(connection, rows.asked(received))
    _drop(rows, rows.places_of(over_midnight), same=False)


def _drop_known(
    connection: Connection,
    table: standing_store.Ledger,
    rows: BatchRows,
    places: Integers,
) -> Integers:
    """Look some of the batch's firsts up: those that stand repeat it. Returns the places of those that do not."""
    stands = standing_store.standing(connection, table, rows.identities[places], rows.contents[places])
    _drop(rows, places[stands == standing_store.SAME], same=True)
    _drop(rows, places[stands == standing_store.OTHER], same=False)
    unknown: Integers = places[stands == standing_store.NOTHING]
    return unknown


def _drop(rows: BatchRows, places: Integers, *, same: bool) -> None:
    """Some of the batch's firsts repeat what stood before them, with the same content or another."""
    rows.stood[places] = standing_store.SAME if same else standing_store.OTHER
    if same:
        rows.count(rows.positions[places], "duplicate")
        return
    for place in places.tolist():
        _repeated(rows, place, same=False)


def _post_usage(
    connection: Connection,
    rows: BatchRows,
    posted_to: Mapping[date, date],
    recent: RecentIdentities | None,
    *,
    merge: bool,
) -> Integers:
    """Post what is new; returns the places of it.

    What is surely new is copied straight into the ledger, anything else is merged. Either is sorted, so that writers of the same
    records never deadlock.
    """
    usage, asked = rows.usage, rows.to_post()
    suspects, replaying = asked, recent is not None and recent.replaying
    if recent is not None and not replaying:
        suspects = asked[recent.known(usage.identities[asked])]
    unknown = _drop_known(connection, "usage_records", rows, suspects)
    new = rows.to_post()
    if recent is not None and not (merge or recent.doubtful):
        store.copy_usage(connection, usage, new, posted_to)
        return new
    met = rows.places_of(store.merge_usage(connection, usage, new, posted_to))
    gone = _drop_known(connection, "usage_records", rows, met)
    if len(gone):
        raise UncountedError(f"{len(gone)} records were met in the ledger, and then not found there")
    if recent is not None:
        stood = len(suspects) - len(unknown) if replaying else 0
        recent.surprised(stood + len(met), of=len(asked))
    return rows.to_post()


def _hold(connection: Connection, rows: BatchRows) -> None:
    """Hold what is not known yet: neither in the ledger, nor waiting already."""
    asked = rows.left(HeldRow)
    if not asked:
        return
    _drop_known(connection, "usage_records", rows, np.array(list(asked)))
    fresh = rows.left(HeldRow)
    held = store.hold(connection, list(fresh.values()))
    waiting = [place for place, row in fresh.items() if row.identity not in held]
    gone = _drop_known(connection, "standing_records", rows, np.array(waiting, dtype=np.int64))
    _drop(rows, gone, same=False)
    rows.counts.update(Counted(row.position_id, "held", row.reason) for row in rows.left(HeldRow).values())


def _refuse(connection: Connection, rows: BatchRows) -> None:
    """Quarantine what its owner's terms refuse, unless it stands already: then it is only repeated (L2)."""
    asked = rows.left(RefusedRow)
    if not asked:
        return
    _drop_known(connection, "usage_records", rows, np.array(list(asked)))
    rows.quarantine.extend(row.kept for row in rows.left(RefusedRow).values())
