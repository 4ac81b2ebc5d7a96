"""What stands already: in the ledger, without being posted, or on the other side of midnight (L1, L2)."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, text

from rollup.ledger import (
    IDENTITY_FIELDS,
    MIDNIGHT_HOURS,
    Identity,
    date_of,
    identity_bytes,
    identity_of,
    key_of,
    nearby_midnight,
)
from rollup.unposted import Asked
from schemas.binary import day_of
from schemas.bulk import copy_binary

NOTHING: Final = 0
SAME: Final = 1
OTHER: Final = 2
_ASKED: Final = np.dtype(
    [
        *(("fields", ">i2"), ("place_length", ">i4"), ("place", ">i4")),
        *(("date_length", ">i4"), ("date", ">i4"), ("key_length", ">i4"), ("key", "V16")),
        *(("content_length", ">i4"), ("content", "V16")),
    ]
)
Ledger = Literal["usage_records", "standing_records"]
LEDGERS: Final[tuple[Ledger, ...]] = ("usage_records", "standing_records")


def standing(
    connection: Connection, table: Ledger, identities: NDArray[np.void], contents: NDArray[np.void]
) -> NDArray[np.int8]:
    """Which identities are in a table, and whether with the same content: `NOTHING`, `SAME` or `OTHER` for each.

    Args:
        connection: in a transaction.
        table: where to look.
        identities: what is asked for, each once, as `UsageColumns` has them.
        contents: with which content.
    """
    found = np.full(len(identities), NOTHING, dtype=np.int8)
    if not len(identities):
        return found
    connection.execute(
        text(
            "create temporary table if not exists asked "
            "(place integer, started_date date, key uuid, content uuid) on commit delete rows"
        )
    )
    connection.execute(text("delete from asked"))  # by an earlier question in this transaction
    rows = np.zeros(len(identities), dtype=_ASKED)
    rows["fields"], rows["place_length"], rows["date_length"] = 4, 4, 4
    rows["key_length"], rows["content_length"] = 16, 16
    rows["place"] = np.arange(len(identities))
    parts = identities.view(IDENTITY_FIELDS)
    rows["date"], rows["key"], rows["content"] = parts["date"], parts["key"], contents
    copy_binary(connection, "asked", ("place", "started_date", "key", "content"), [rows.tobytes()])
    dates = parts["date"].astype(np.int64)
    same, other = connection.execute(
        text(
            "select array_agg(a.place) filter (where t.content = a.content), "  # noqa: S608 (one of our own tables)
            "array_agg(a.place) filter (where t.content <> a.content) from asked a "
            f"join lateral (select content from {table} u "
            "where u.started_date = a.started_date and u.key = a.key "
            "and u.started_date between :first and :last limit 1) t on true"
        ),
        # the bounds spare the look into partitions that none of them can be in
        {"first": day_of(int(dates.min())), "last": day_of(int(dates.max()))},
    ).one()
    found[same or []], found[other or []] = SAME, OTHER
    return found


def standing_unposted(connection: Connection, records_max: int) -> set[Identity] | None:
    """The identities of records that stand without being posted; None where there are more than `records_max`.

    Usually they are few, and to read them all costs much less than to look up every record of a batch among them.
    """
    joined = connection.scalar(
        text(
            "select string_agg(date_send(started_date) || uuid_send(key), '') "
            "from (select started_date, key from standing_records limit :enough) as standing"
        ),
        {"enough": records_max + 1},
    )
    identities = bytes(joined or b"")
    if len(identities) > records_max * identity_bytes:
        return None
    return {identities[each : each + identity_bytes] for each in range(0, len(identities), identity_bytes)}


def claim_midnights(connection: Connection, rows: Sequence[Asked]) -> set[Identity]:
    """Claim the keys of records near a midnight; returns those already claimed by the other date (L1).

    Of two the one that comes first claims: they come in the order they were received.
    """
    claims = [
        (midnight, key_of(row.identity), date_of(row.identity))
        for row in rows
        if row.started_at.hour in MIDNIGHT_HOURS and (midnight := nearby_midnight(row.started_at)) is not None
    ]
    claims.sort(key=itemgetter(0, 1))  # a common order, so that none deadlock
    if not claims:
        return set()
    parameters = {
        "midnights": [claim[0] for claim in claims],
        "keys": [claim[1] for claim in claims],
        "dates": [claim[2] for claim in claims],
    }
    asked = "unnest(cast(:midnights as date[]), cast(:keys as uuid[]), cast(:dates as date[])) as a(midnight_on, key, started_date)"
    connection.execute(
        text(
            f"insert into midnight_identities (midnight_on, key, started_date) select * from {asked} "  # noqa: S608 (our own text)
            "on conflict (midnight_on, key) do nothing"
        ),
        parameters,
    )
    elsewhere = connection.execute(
        text(
            f"select a.started_date, a.key from {asked} "  # noqa: S608 (our own text)
            "join midnight_identities m on m.midnight_on = a.midnight_on and m.key = a.key "
            "where m.started_date <> a.started_date"
        ),
        parameters,
    )
    return {identity_in(row) for row in elsewhere}


def identity_in(row: Row[Any]) -> Identity:
    """The identity in a row of `started_date` and `key`."""
    return identity_of(row.started_date, row.key.bytes)
