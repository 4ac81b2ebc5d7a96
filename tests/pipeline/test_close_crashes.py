"""Whatever stops a close, the next one gives one statement per tenant and one event per statement (C2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Engine, text

from pipeline.closer import Closed, close_month
from rollup.audit_store import rebuild, reconcile
from rollup.months_store import database_now, period_row
from schemas.periods import Period
from tests.pipeline.program import SETTINGS, NothingBeyond
from tests.pipeline.stopping import killed_at
from tests.rollup.builders import World

POINTS = [
    ("periods", "after update of cutoff_at"),
    ("period_boundaries", "after insert"),
    ("periods", "before update of sealed_at"),
    ("periods", "after update of sealed_at"),
    ("statements", "before insert"),
    ("statements", "after insert"),
    ("outbox", "after insert"),
    ("periods", "after update of closed_at"),
]


@pytest.fixture
def past(database: Engine) -> Period:
    """A month whose cutoff has passed: two accounts, three tenants, some usage."""
    with database.begin() as connection:
        month = Period.of(database_now(connection)).plus(-2)
        world = World(connection, *(month.plus(n) for n in range(3)))
        before = month.starts_at - timedelta(days=50)
        acme, other = world.account(), world.account("other", "EUR")
        for account, code, currency in ((acme, "shop", "USD"), (acme, "idle", "USD"), (other, "bank", "EUR")):
            tenant = world.tenant(account, code, made_at=before)
            if code != "idle":
                world.record(account, tenant, month.starts_at + timedelta(days=3), currency=currency)
        world.running()
    return month


def run(engine: Engine, sql: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql))


def told(engine: Engine, month: Period) -> dict[str, bytes]:
    """What the closed month's statements are, checked: one per owner, one event each, and they add up."""
    with engine.connect() as connection:
        rows = connection.execute(
            text("select cast(id as text), body from statements order by sequence")
        ).all()
        events = connection.execute(
            text("select topic, headers ->> 'ce_id' as id, value from outbox order by id")
        ).all()
        assert reconcile(connection) == ()
        assert all(each.same for each in rebuild(connection, month))
    ids = [row.id for row in rows]
    assert len(ids) == len(set(ids)) == 5
    statements = [event for event in events if event.topic == "statements.closed"]
    assert sorted(event.id for event in statements) == sorted(ids)
    assert [event.topic for event in sorted(events, key=lambda event: event.topic)].count(
        "periods.closed"
    ) == 2
    assert sum(orjson.loads(bytes(e.value))["statement_count"] for e in events if e not in statements) == 5
    return {row.id: bytes(row.body) for row in rows}


@pytest.mark.parametrize(("table", "when"), POINTS, ids=[" ".join(point) for point in POINTS])
def test_a_close_killed_at_any_point_is_closed_by_the_next_one(
    database: Engine, database_url: str, past: Period, tmp_path: Path, table: str, when: str
) -> None:
    close = ["tests.pipeline.program", "close", database_url, str(past)]
    killed_at(database, table, when, close, tmp_path / "log")
    with database.connect() as connection:
        row = period_row(connection, past)
        left = connection.execute(text("select count(*) from statements")).scalar_one()
        left += connection.execute(text("select count(*) from outbox")).scalar_one()
    assert row is not None
    assert (row.state == "closed", left) == (False, 0)
    sealed_at = row.sealed_at
    assert isinstance(close_month(database, SETTINGS, NothingBeyond(), past), Closed)
    first = told(database, past)
    with database.connect() as connection:
        row = period_row(connection, past)
    assert row is not None
    assert sealed_at in {None, row.sealed_at}
    assert isinstance(close_month(database, SETTINGS, NothingBeyond(), past), Closed)
    assert told(database, past) == first


@pytest.mark.parametrize(("table", "when"), POINTS, ids=[" ".join(point) for point in POINTS])
def test_a_close_that_fails_at_any_point_is_closed_by_the_next_one(
    database: Engine, past: Period, table: str, when: str
) -> None:
    run(
        database,
        "create function fail() returns trigger language plpgsql as $$ begin raise exception 'disk full'; end $$",
    )
    run(database, f"create trigger fail {when} on {table} for each row execute function fail()")
    with pytest.raises(Exception, match="disk full"):
        close_month(database, SETTINGS, NothingBeyond(), past)
    run(database, f"drop trigger fail on {table}")
    assert isinstance(close_month(database, SETTINGS, NothingBeyond(), past), Closed)
    assert len(told(database, past)) == 5


class Moving:
    """Kafka with traffic that never stops: the end is further on each time it is asked."""

    def __init__(self) -> None:
        self.end = 0

    def boundaries(self, topics: Iterable[str], at: datetime) -> Mapping[tuple[str, int], int]:  # noqa: ARG002 (the protocol)
        self.end += 100
        return {("calls.raw", 0): self.end}

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:  # noqa: ARG002 (the protocol)
        return {}


def test_traffic_that_never_stops_does_not_move_the_boundary(database: Engine, past: Period) -> None:
    source = Moving()
    run(database, "update stream_positions set next_offset = 100")
    assert isinstance(close_month(database, SETTINGS, source, past), Closed)
    assert source.end == 100
