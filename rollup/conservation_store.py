"""Is anything lost: received = posted + duplicate + held + quarantined + ignored + context (DESIGN 8).

`received` is what the stream itself counted, one for every decoded record, with its position and in the same
transaction. Releases and replays move counts from one outcome to another; a move that is not even, or done twice, makes
the two sides differ. Held and quarantined must be the rows that wait and are kept, posted those of the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

_OUTCOMES: Final = ("posted", "duplicate", "held", "quarantined", "ignored", "context")


class Conservation(NamedTuple):
    """What became of everything that was received: of one input topic, or of all.

    `waiting` and `kept` are rows of the tables; `kept` includes `discarded` ones, which are not posted either. `ledger`
    is what the ledger holds by monthly usage, or by counting its rows; None where it was not asked. `gap` counts records
    that Kafka dropped before they could be received.
    """

    topic: str
    received: int
    posted: int
    duplicate: int
    held: int
    quarantined: int
    ignored: int
    context: int
    waiting: int
    kept: int
    discarded: int
    gap: int
    ledger: int | None

    @property
    def violations(self) -> tuple[str, ...]:
        """What does not add up, each in words."""
        outcomes = sum(getattr(self, outcome) for outcome in _OUTCOMES)
        pairs = (
            ("received", self.received, "the sum of outcomes", outcomes),
            ("held", self.held, "records that wait", self.waiting),
            ("quarantined", self.quarantined, "records kept in quarantine", self.kept),
            ("posted", self.posted, "the ledger", self.posted if self.ledger is None else self.ledger),
        )
        return tuple(
            f"{self.topic}: {name} is {counted}, {other} {found}"
            for name, counted, other, found in pairs
            if counted != found
        )

    @property
    def holds(self) -> bool:
        """Whether every record is accounted for, and the counts are those of the tables."""
        return not self.violations


_QUERY: Final = """
select p.topic,
    coalesce(sum(c.received), 0)::bigint, {outcomes},
    coalesce(sum(h.waiting), 0)::bigint, coalesce(sum(q.kept), 0)::bigint, coalesce(sum(q.discarded), 0)::bigint,
    coalesce(sum(p.gap_records), 0)::bigint, {ledger},
    (select coalesce(sum(attempts), 0)::bigint from monthly_usage)
from stream_positions p
left join (select position_id, sum(records) filter (where writer = 'stream') as received, {filtered}
           from outcome_counts group by position_id) c on c.position_id = p.id
left join (select position_id, count(*) as waiting from held_records group by position_id) h on h.position_id = p.id
left join (select position_id, count(*) as kept, count(*) filter (where state = 'discarded') as discarded
           from quarantine where state <> 'replayed' group by position_id) q on q.position_id = p.id
{rows}
group by p.topic order by p.topic
"""


def by_topic(connection: Connection, *, count_rows: bool = False) -> tuple[Conservation, ...]:
    """The line of each input topic, and last that of all of them; in one statement, and so at one moment.

    Args:
        connection: any transaction.
        count_rows: count the ledger's rows, by topic; otherwise the last line takes them from monthly usage, at once.
    """
    query = _QUERY.format(
        outcomes=", ".join(f"coalesce(sum(c.{outcome}), 0)::bigint" for outcome in _OUTCOMES),
        filtered=", ".join(
            f"sum(records) filter (where outcome = '{outcome}') as {outcome}" for outcome in _OUTCOMES
        ),
        ledger="coalesce(sum(l.posted), 0)::bigint" if count_rows else "null::bigint",
        rows="left join (select position_id, count(*) as posted from usage_records group by position_id) l "
        "on l.position_id = p.id"
        if count_rows
        else "",
    )
    rows = connection.execute(text(query)).all()
    topics = [Conservation(*row[:-1]) for row in rows]
    posted = sum(each.ledger or 0 for each in topics) if count_rows else (rows[0][-1] if rows else 0)
    return (*topics, _all(topics, posted))


def conservation(connection: Connection) -> Conservation:
    """The line of all topics, at one moment; quick."""
    return by_topic(connection)[-1]


def _all(topics: Sequence[Conservation], ledger: int) -> Conservation:
    sums = (sum(column) for column in zip(*(each[1:-1] for each in topics), strict=True))
    numbers = sums if topics else (0,) * (len(Conservation._fields) - 2)
    return Conservation._make(("all", *numbers, ledger))
