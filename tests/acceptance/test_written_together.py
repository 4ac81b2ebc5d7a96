"""Batches of several partitions in one transaction: what comes of them is what would if each were written alone, in their order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from pipeline import position_store
from pipeline.posting import BatchPoster, LostPlaceError, PreparedBatch, is_away
from pipeline.prepare import Message
from rollup.posting_store import Counted
from tests.world import World, _bytes, inbound, outbound, utc

OCTOBER: Final = utc("2026-10-10 12:00")
MIDNIGHT: Final = utc("2026-10-11 00:00")
LATER: Final = OCTOBER + timedelta(days=2)
NUMBER: Final = "+12125550101"
PARTITIONS: Final = 3
_examples = count(1)


def furnished(engine: Engine) -> World:
    world = World(engine)
    account = world.account()
    world.number(NUMBER, account, world.tenant(account, "a.example.com"))
    world.ip("192.0.2.9", account)
    return world.run()


@pytest.fixture
def carrier(database: Engine) -> World:
    return furnished(database)


class Said(NamedTuple):
    """A record as a story has it: one of few identities, so that partitions repeat and contradict one another."""

    number: int
    kind: str
    cost: str
    started_at: datetime

    def record(self, prefix: str) -> dict[str, Any] | bytes:
        name, facts = f"{prefix}-{self.number}", {"cost": self.cost}
        if self.kind == "unreadable":
            return name.encode()
        if self.kind == "waits":
            return outbound(name, None, self.started_at, **facts)
        if self.kind == "refused":
            return inbound(name, NUMBER, self.started_at, currency="EUR", **facts)
        return inbound(name, NUMBER, self.started_at, **facts)


kinds = st.sampled_from(["posted", "posted", "posted", "waits", "refused", "unreadable"])
costs = st.sampled_from(["0.01", "0.01", "0.02"])
by_day = st.builds(Said, st.integers(1, 2), kinds, costs, st.just(OCTOBER))
over_midnight = st.sampled_from([MIDNIGHT - timedelta(seconds=1), MIDNIGHT])
said = by_day | st.builds(Said, st.just(3), kinds, costs, over_midnight)
stories = st.lists(st.lists(said, max_size=4), min_size=PARTITIONS, max_size=PARTITIONS)


def prepared(world: World, story: Sequence[Sequence[Said]], prefix: str) -> list[PreparedBatch]:
    """A batch for each partition of a story."""
    source = world.settings.inputs_of("calls")[0]
    batches = []
    for partition, records in enumerate(story):
        with world.engine.begin() as connection:
            position = position_store.ensure_position(connection, source.topic, partition, 0)
        messages = [
            Message(position.next_offset + place, LATER, None, _bytes(each.record(prefix)))
            for place, each in enumerate(records)
        ]
        batches.append(world.prepared(source, position, messages))
    return batches


def kept(world: World, prefix: str, batches: Sequence[PreparedBatch]) -> list[tuple[Any, ...]]:
    """Every row that came of a story, with its place in its batch."""
    first = {each.position_id: each.first_offset for each in batches}
    rows = world.query(
        "select 'ledger' as what, record_id, cost, position_id, kafka_offset from usage_records where record_id like :of "
        "union all select 'held', record_id, null, position_id, kafka_offset from held_records where record_id like :of "
        "union all select 'quarantine ' || reason, null, null, position_id, kafka_offset from quarantine "
        "where convert_from(value, 'UTF8') like :anywhere",
        of=f"{prefix}-%",
        anywhere=f"%{prefix}-%",
    )
    return sorted(
        (
            row.what,
            str(row.record_id).removeprefix(prefix),
            str(row.cost),
            row.position_id,
            row.kafka_offset - first[row.position_id],
        )
        for row in rows
    )


def sums(world: World) -> Counter[tuple[Any, ...]]:
    rows = world.query(
        "select period, usage_period, account_id, tenant_id, usage_class, attempts, cost from monthly_usage_totals"
    )
    return Counter(
        {
            (*row[:5], what): number
            for row in rows
            for what, number in (("attempts", row.attempts), ("cost", row.cost))
        }
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=stories)
def test_together_is_as_one_after_another(database: Engine, story: list[list[Said]]) -> None:
    number = next(_examples)
    world = furnished(database) if number == 1 else World(database)
    before = sums(world)
    alone = prepared(world, story, f"alone{number}")
    counted = sum((world.poster.post(each) for each in alone), Counter[Counted]())
    between = sums(world)
    together = prepared(world, story, f"together{number}")

    assert world.poster.post(*together) == counted
    assert kept(world, f"together{number}", together) == kept(world, f"alone{number}", alone)
    between.subtract(before)
    after = sums(world)
    after.subtract(before)
    after.subtract(between)
    assert +after == +between


def simple(world: World) -> list[PreparedBatch]:
    return prepared(world, [[Said(number, "posted", "0.01", OCTOBER)] for number in range(PARTITIONS)], "s")


def test_sums_go_to_the_shard_of_the_lowest_position(carrier: World) -> None:
    """Which only this transaction has moved, so that no other writer waits for its rows."""
    batches = simple(carrier)
    carrier.poster.post(batches[2], batches[1])
    rows = carrier.query("select shard, sum(attempts)::int as attempts from monthly_usage group by shard")
    assert {row.shard: row.attempts for row in rows} == {batches[1].position_id: 2}


def test_what_was_believed_to_be_new_and_is_not_is_merged_with_the_rest(carrier: World) -> None:
    """As after a restart, or where another worker has posted it; nothing has to be written apart for it."""
    carrier.poster.post(simple(carrier)[1])
    carrier.poster = BatchPoster(carrier.engine)
    again = simple(carrier)
    assert carrier.poster.post(*again) == {
        Counted(again[0].position_id, "posted", ""): 1,
        Counted(again[1].position_id, "duplicate", ""): 1,
        Counted(again[2].position_id, "posted", ""): 1,
    }
    assert [row.record_id for row in carrier.ledger()] == ["s-0", "s-1", "s-2"]


def test_where_one_place_is_lost_nothing_is_written(carrier: World) -> None:
    batches = simple(carrier)
    carrier.poster.post(batches[1])
    with pytest.raises(LostPlaceError):
        carrier.poster.post(*batches)
    assert [row.record_id for row in carrier.ledger()] == ["s-1"]
    offsets = carrier.query("select next_offset from stream_positions order by partition")
    assert [row.next_offset for row in offsets] == [0, 1, 0]


def test_a_place_that_someone_holds_is_not_waited_for(carrier: World) -> None:
    """A frozen worker holds the rows of its partitions; those of others go on at once, each alone."""
    batches = simple(carrier)
    with carrier.engine.begin() as frozen:
        frozen.execute(
            text("select from stream_positions where id = :id for update"), {"id": batches[1].position_id}
        )
        refused = threading.Timer(8, frozen.connection.cancel)
        refused.start()
        with pytest.raises(LostPlaceError):
            carrier.poster.post(*batches)
        assert refused.is_alive()
        refused.cancel()
        carrier.poster.post(batches[0])
        carrier.poster.post(batches[2])
    carrier.poster.post(batches[1])
    assert [row.record_id for row in carrier.ledger()] == ["s-0", "s-1", "s-2"]


def test_what_the_database_refuses_of_several_is_said_and_nothing_is_written(carrier: World) -> None:
    with carrier.engine.begin() as connection:
        connection.execute(text("alter table usage_records add constraint odd check (record_id <> 's-1')"))
    batches = simple(carrier)
    with pytest.raises(DBAPIError) as refused:
        carrier.poster.post(*batches)
    assert not is_away(refused.value)
    assert carrier.ledger() == []
    counts = sum((carrier.poster.post(each) for each in batches), Counter[Counted]())
    assert counts == {
        Counted(batches[0].position_id, "posted", ""): 1,
        Counted(batches[1].position_id, "quarantined", "refused_by_database"): 1,
        Counted(batches[2].position_id, "posted", ""): 1,
    }
