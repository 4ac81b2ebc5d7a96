"""Records in quarantine that someone wants to try again, or to give up.

A row's state is the guard (L3): whoever finds it open and locked moves it, everyone else passes it by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

frozen_seconds_max: Final = 60
_CHOSEN: Final = """
    q.state = 'open'
    and (cast(:reason as text) is null or q.reason = :reason)
    and (cast(:account as text) is null or q.account_id = (select id from accounts where code = :account))
    and (cast(:topic as text) is null
         or q.position_id = any(array(select id from stream_positions where topic = :topic)))
    and (cast(:ids as bigint[]) is null or q.id = any(:ids))
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which open records are meant: all that have the reason, the account's code, the input topic and one of the ids.

    What is None, or empty, does not choose.
    """

    reason: str | None = None
    account: str | None = None
    topic: str | None = None
    ids: tuple[int, ...] = ()

    @property
    def parameters(self) -> Mapping[str, object]:
        """The choice as a query's parameters."""
        return {
            "reason": self.reason,
            "account": self.account,
            "topic": self.topic,
            "ids": list(self.ids) or None,
        }


class Extent(NamedTuple):
    """How many records are chosen, and the last id among them: what comes later is left for another time."""

    records: int
    last_id: int


class KeptRecord(NamedTuple):
    """A record in quarantine with its bytes and Kafka coordinates; `stands`: under its identity (L2).

    `ordinal`: which record of its message. `alone`: no other record of that message was ever quarantined.
    """

    id: int
    position_id: int
    topic: str
    kafka_offset: int
    received_at: datetime
    reason: str
    key: bytes | None
    value: bytes | None
    stands: bool
    ordinal: int
    alone: bool


class Standing(NamedTuple):
    """Why a record stays in quarantine; the last three where it stands under its identity."""

    id: int
    reason: str
    detail: str
    account_id: int | None
    started_at: datetime | None
    started_date: date | None
    record_key: str | None
    content: str | None


def extent(connection: Connection, chosen: Chosen) -> Extent:
    """How many open records are chosen now."""
    row = connection.execute(
        text(
            "select count(*) as records, coalesce(max(q.id), 0) as last_id "  # noqa: S608 (our own text)
            f"from quarantine q where {_CHOSEN}"
        ),
        chosen.parameters,
    ).one()
    return Extent(row.records, row.last_id)


def next_ids(
    connection: Connection, chosen: Chosen, after_id: int, last_id: int, records_max: int, bytes_max: int
) -> list[int]:
    """The next chosen records, oldest first: so many at most, and so many bytes together; one at least if there is one."""
    rows = connection.execute(
        text(
            "select id from (select id, sum(bytes) over (order by id) - bytes as bytes_before from ("  # noqa: S608 (our own text)
            "select q.id, coalesce(octet_length(q.value), 0) as bytes from quarantine q "
            f"where {_CHOSEN} and q.id > :after_id and q.id <= :last_id order by q.id limit :records_max"
            ") as sized) as summed where bytes_before < :bytes_max or bytes_before = 0 order by id"
        ),
        {
            **chosen.parameters,
            "after_id": after_id,
            "last_id": last_id,
            "records_max": records_max,
            "bytes_max": bytes_max,
        },
    )
    return [row.id for row in rows]


def lock(connection: Connection, chosen: Chosen, ids: Sequence[int]) -> list[KeptRecord]:
    """Those of some records that are still chosen, locked for this transaction; those another holds are passed by.

    Who stands still in that transaction loses it: it may hold up a seal.
    """
    connection.execute(text(f"set local idle_in_transaction_session_timeout = '{frozen_seconds_max}s'"))
    rows = connection.execute(
        text(
            "select q.id, q.position_id, p.topic, q.kafka_offset, q.received_at, q.reason, q.key, q.value, "  # noqa: S608 (our own text)
            "q.record_key is not null as stands, q.ordinal, not exists (select from quarantine o where "
            "o.position_id = q.position_id and o.kafka_offset = q.kafka_offset and o.ordinal <> q.ordinal) as alone "
            "from quarantine q join stream_positions p on p.id = q.position_id "
            f"where {_CHOSEN} and q.id = any(:part) order by q.id for update of q skip locked"
        ),
        {**chosen.parameters, "part": list(ids)},
    )
    return [
        KeptRecord(
            row.id,
            row.position_id,
            row.topic,
            row.kafka_offset,
            row.received_at,
            row.reason,
            None if row.key is None else bytes(row.key),
            None if row.value is None else bytes(row.value),
            row.stands,
            row.ordinal,
            row.alone,
        )
        for row in rows
    ]


def set_aside(connection: Connection, ids: Sequence[int]) -> None:
    """Free the coordinates of records that are about to be written again: they may come back to quarantine."""
    connection.execute(
        text("update quarantine set ordinal = -1 - ordinal where id = any(:ids)"), {"ids": list(ids)}
    )


def settle(connection: Connection, resolutions: Mapping[int, str]) -> None:
    """Count records that were set aside and written as replayed; those that came back stay, with their new reason.

    Args:
        connection: in the transaction that set them aside.
        resolutions: what became of each, by its id.
    """
    ids = list(resolutions)
    came_back = connection.execute(
        text(
            "delete from quarantine n using quarantine o where o.id = any(:ids) and n.position_id = o.position_id "
            "and n.kafka_offset = o.kafka_offset and n.ordinal = -1 - o.ordinal "
            "returning o.id, n.reason, n.detail, n.account_id, n.started_at, n.started_date, "
            "n.record_key::text, n.content::text"
        ),
        {"ids": ids},
    ).all()
    set_aside(connection, ids)  # a second time: their coordinates are theirs again
    keep(connection, [Standing(*row) for row in came_back])
    stay = {row.id for row in came_back}
    replayed = {
        record_id: resolution for record_id, resolution in resolutions.items() if record_id not in stay
    }
    connection.execute(
        text(
            "update quarantine q set state = 'replayed', resolved_at = clock_timestamp(), resolution = r.resolution "
            "from unnest(cast(:ids as bigint[]), cast(:resolutions as text[])) as r(id, resolution) where q.id = r.id"
        ),
        {"ids": list(replayed), "resolutions": list(replayed.values())},
    )


def keep(connection: Connection, standing: Sequence[Standing]) -> None:
    """Write down why records that were tried again stay in quarantine; what has not changed is not written."""
    connection.execute(
        text(
            "update quarantine q set reason = s.reason, detail = s.detail, account_id = s.account_id, "
            "started_at = s.started_at, started_date = s.started_date, record_key = s.record_key, content = s.content "
            "from unnest(cast(:ids as bigint[]), cast(:reasons as text[]), "
            "cast(:details as text[]), cast(:accounts as bigint[]), cast(:starts as timestamptz[]), "
            "cast(:dates as date[]), cast(:keys as uuid[]), cast(:contents as uuid[])) "
            "as s(id, reason, detail, account_id, started_at, started_date, record_key, content) where q.id = s.id and "
            "(q.reason, q.detail, q.account_id, q.started_at, q.started_date, q.record_key, q.content) is distinct from "
            "(s.reason, s.detail, s.account_id, s.started_at, s.started_date, s.record_key, s.content)"
        ),
        {
            "ids": [each.id for each in standing],
            "reasons": [each.reason for each in standing],
            "details": [each.detail for each in standing],
            "accounts": [each.account_id for each in standing],
            "starts": [each.started_at for each in standing],
            "dates": [each.started_date for each in standing],
            "keys": [each.record_key for each in standing],
            "contents": [each.content for each in standing],
        },
    )


def discard(connection: Connection, chosen: Chosen, ids: Sequence[int], because: str) -> int:
    """Give some of the chosen records up, for good; returns how many were open and are discarded now."""
    discarded = connection.execute(
        text(
            "update quarantine set state = 'discarded', resolved_at = clock_timestamp(), resolution = :because "  # noqa: S608 (our own text)
            f"where id in (select q.id from quarantine q where {_CHOSEN} and q.id = any(:part) "
            "order by q.id for update skip locked)"
        ),
        {**chosen.parameters, "part": list(ids), "because": because},
    )
    return discarded.rowcount
