"""SIP events are let go by the month, and never while anything could still ask for them (A10)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from attribution.context import context_age_max
from deploy.stack.broker import Broker
from pipeline import position_store
from pipeline.context_expiry import expire_contexts
from pipeline.resolver import run_resolver
from pipeline.settings import InputTopic
from schemas.periods import Period
from tests.conftest import MakeTopics
from tests.world import World, inbound, invite, outbound, utc

SEPTEMBER = utc("2026-09-10 12:00")
READ_FAR_ENOUGH = utc("2026-10-01 00:00") + context_age_max
SHARED_IP = "198.51.100.7"
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def closed_september(world: World) -> World:
    """September is closed and has a SIP event; call records have been read as far as they must."""
    account = world.account()
    world.ip(SHARED_IP, account)
    world.number("+12125550101", account, None)
    world.run()
    close(world, "2026-09")
    world.receive(invite("one@example.com", SHARED_IP, SEPTEMBER), at=SEPTEMBER, topic="sip.raw")
    read_calls_through(world, READ_FAR_ENOUGH)
    return world


def close(world: World, month: str, state: str = "closed") -> None:
    with world.engine.begin() as connection:
        connection.execute(
            text("update periods set state = :state where period = :period"),
            {"state": state, "period": Period.parse(month).first_day},
        )


def read_calls_through(world: World, at: datetime, partition: int = 0) -> None:
    """Calls have been read up to an instant, and there are more."""
    world.receive(None, at=at, partition=partition)
    world.logs.unread["calls.raw", partition] = 1_000_000


def expire(world: World) -> list[str]:
    dropped = expire_contexts(world.settings, world.engine, world.logs)  # type: ignore[arg-type]
    return [str(month) for month in dropped]


def kept(world: World) -> int:
    return int(world.query("select count(*) as n from sip_contexts")[0].n)


def test_a_closed_months_sip_events_go_and_those_of_open_months_stay(closed_september: World) -> None:
    world = closed_september
    world.receive(
        invite("two@example.com", SHARED_IP, SEPTEMBER), at=utc("2026-10-01 00:00"), topic="sip.raw"
    )
    assert expire(world) == ["2026-09"]
    assert [row.received_at for row in world.query("select received_at from sip_contexts")] == [
        utc("2026-10-01 00:00")
    ]
    assert expire(world) == []


def held(world: World) -> None:
    at = READ_FAR_ENOUGH - MICROSECOND
    world.receive(outbound("held", SHARED_IP, at, call_id="one@example.com"), at=at, partition=1)
    read_calls_through(world, READ_FAR_ENOUGH, partition=1)


def unrated(world: World) -> None:
    world.receive(inbound("unrated", "+12125550101", SEPTEMBER, cost=None), at=SEPTEMBER, partition=1)
    assert ("quarantined", "unrated") in world.outcomes()
    read_calls_through(world, READ_FAR_ENOUGH, partition=1)


@pytest.mark.parametrize(
    "needed",
    [
        pytest.param(held, id="a held record may need them"),
        pytest.param(unrated, id="a record may be replayed once it has a tariff"),
        pytest.param(
            lambda world: read_calls_through(world, READ_FAR_ENOUGH - MICROSECOND, partition=1),
            id="a partition was not read as far",
        ),
        pytest.param(
            lambda world: world.logs.unread.update({("calls.raw", 2): 1}), id="a partition was never read"
        ),
    ],
)
def test_they_stay_while_anything_could_ask_for_them(
    closed_september: World, needed: Callable[[World], None]
) -> None:
    needed(closed_september)
    assert expire(closed_september) == []
    assert kept(closed_september) == 1


@pytest.mark.parametrize("states", [{}, {"2026-09": "sealed"}, {"2026-10": "closed"}], ids=str)
def test_they_stay_until_the_month_and_all_before_it_are_closed(world: World, states: dict[str, str]) -> None:
    world.run()
    for month, state in states.items():
        close(world, month, state)
    world.receive(invite("one@example.com", SHARED_IP, SEPTEMBER), at=SEPTEMBER, topic="sip.raw")
    read_calls_through(world, utc("2027-01-01 00:00"))
    assert expire(world) == []
    assert kept(world) == 1


@pytest.mark.parametrize("month", ["2026-10", "2026-09", "2025-01"])
def test_the_database_itself_refuses_to_drop_what_may_be_needed(closed_september: World, month: str) -> None:
    held(closed_september)
    with pytest.raises(DBAPIError, match="are kept"), closed_september.engine.begin() as connection:
        connection.execute(text("select drop_sip_contexts(:month)"), {"month": Period.parse(month).first_day})
    assert kept(closed_september) == 1


@pytest.mark.parametrize("dropped", [True, False])
def test_whether_old_sip_events_were_dropped_changes_no_outcome(
    closed_september: World, *, dropped: bool
) -> None:
    """Records that could need them have all been read: later ones are decided without them, dropped or not."""
    world = closed_september
    if dropped:
        assert expire(world) == ["2026-09"]
    world.receive(
        outbound("late", SHARED_IP, SEPTEMBER, call_id="one@example.com"), at=READ_FAR_ENOUGH, partition=0
    )
    world.logs.unread.clear()
    world.resolve()
    [row] = world.ledger()
    assert row.reason == "no_tenant_header"


def test_an_event_speaks_for_records_received_up_to_35_days_later(world: World) -> None:
    world.tenant(world.account(), "big.example.com")
    world.ip(SHARED_IP, 1)
    world.run()
    event = invite("one@example.com", SHARED_IP, SEPTEMBER, "big.example.com")
    world.receive(event, at=SEPTEMBER, topic="sip.raw")
    call = outbound("", SHARED_IP, SEPTEMBER, call_id="one@example.com")
    world.receive({**call, "id": "in time"}, at=SEPTEMBER + context_age_max)
    world.receive({**call, "id": "too late"}, at=SEPTEMBER + context_age_max + timedelta(milliseconds=1))
    world.resolve()
    assert {row.record_id: row.tenant for row in world.ledger()} == {
        "in time": "big.example.com",
        "too late": None,
    }


def test_strays_that_were_read_after_their_month_was_dropped_go_too(closed_september: World) -> None:
    assert expire(closed_september) == ["2026-09"]
    event = invite("one@example.com", SHARED_IP, SEPTEMBER)
    closed_september.receive(event, at=SEPTEMBER, topic="sip.raw")
    assert kept(closed_september) == 1
    expire(closed_september)
    assert kept(closed_september) == 0


def test_a_long_reader_is_waited_for_a_second_at_most_and_the_rest_is_done_later(
    closed_september: World,
) -> None:
    with closed_september.engine.connect() as reader:
        reader.execute(text("select * from sip_contexts"))
        assert expire(closed_september) == []
    assert kept(closed_september) == 1
    assert expire(closed_september) == ["2026-09"]


def test_the_resolver_lets_them_go_by_itself(database: Engine, kafka: Broker, topics: MakeTopics) -> None:
    names = topics(calls=1, sip=1)
    inputs = (
        InputTopic(topic=names["calls"], kind="calls"),
        InputTopic(topic=names["sip"], kind="sip"),
    )
    world = World(database, inputs=inputs, kafka_bootstrap_servers=kafka.bootstrap_servers).run(
        "2025-01", "2027-12"
    )
    close(world, "2025-01")
    with world.engine.begin() as connection:
        for name in names.values():
            position_store.ensure_position(connection, name, 0, 0)
    stop = threading.Event()
    resolver = threading.Thread(target=run_resolver, args=(world.settings, world.engine, stop))
    resolver.start()
    try:
        pause = threading.Event()
        for _ in range(300):
            if world.query("select to_regclass('sip_contexts_partition_2025_01') as it")[0].it is None:
                break
            pause.wait(0.1)
        else:
            raise AssertionError("the SIP events of January 2025 are still there")
    finally:
        stop.set()
        resolver.join(20)
