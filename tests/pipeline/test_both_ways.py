"""An on-net call that a switch tells once is two records for two tenants, each with its own fate (A2, A3, DESIGN 8)."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from attribution.changes_store import take_change_instant
from pipeline.replay import replay
from rollup.conservation_store import by_topic
from rollup.quarantine_store import Chosen
from rollup.tariff_store import NewTariff, add_tariff
from tests.world import LONG_AGO, World, invite, utc

NOON = utc("2026-10-10 12:00")
CALLER_IP, SHARED_IP, CALLED = "192.0.2.10", "192.0.2.20", "+12125550199"
STRANGERS_IP, STRANGER = "203.0.113.9", "+12125550188"
OUT, IN = "call-1", "call-1/inbound"  # by their Call-ID; the switch's id has the time behind it


def dialog(call_id: str = "call-1", at: datetime = NOON, **fields: Any) -> bytes:
    """What Kamailio says of a call of a minute when it is over."""
    told = {
        "call_id": call_id,
        "invite_ts": f"{at.timestamp():.6f}",
        "start_time": f"{at.timestamp() + 4:.3f}",
        "end_time": f"{at.timestamp() + 64:.3f}",
        "duration": "60.000",
        "from_user": "+12125550150",
        "to_user": CALLED,
        "src_ip": CALLER_IP,
        **fields,
    }
    return json.dumps(told).encode()


def a_world(database: Engine, on_net: str | None = "both") -> World:
    form = {"name": "kamailio", "switch": "k", "direction": "directory"}
    form |= {} if on_net is None else {"on_net": on_net}
    inputs = [{"topic": "calls.raw", "kind": "calls", "format": form}, {"topic": "sip.raw", "kind": "sip"}]
    return World(database, inputs=inputs)


def with_customers(world: World, *usage_classes: str) -> World:
    account = world.account()
    caller, called = world.tenant(account, "caller.example.com"), world.tenant(account, "called.example.com")
    world.ip(f"{CALLER_IP}/32", account, caller)
    world.ip(f"{SHARED_IP}/32", account)
    world.number(CALLED, account, called)
    for usage_class in usage_classes:
        world.tariff(account, usage_class, "0.0100")
    return world.run()


@pytest.fixture
def world(database: Engine) -> World:
    return with_customers(a_world(database), "outbound_conversational", "inbound_conversational")


def posted(world: World) -> list[tuple[str, str, str | None, int]]:
    return [(shown(row.record_id), row.direction, row.tenant, row.billed_seconds) for row in world.ledger()]


def shown(record_id: str) -> str:
    """A record's id without the time in it."""
    return re.sub(r";[0-9.]+", "", record_id)


def assert_nothing_is_lost(world: World, received: int) -> None:
    with world.engine.connect() as connection:
        found = by_topic(connection, count_rows=True)
    assert [violation for each in found for violation in each.violations] == []
    assert sum(each.received for each in found if each.topic == "calls.raw") == received


def test_a_call_between_two_customers_is_billed_to_both_and_its_resend_to_none(world: World) -> None:
    world.receive(dialog(), at=NOON)
    assert posted(world) == [
        (OUT, "outbound", "caller.example.com", 60),
        (IN, "inbound", "called.example.com", 60),
    ]
    world.receive(dialog(), dialog(), at=NOON)
    assert world.outcomes() == {("posted", ""): 2, ("duplicate", ""): 4}
    assert_nothing_is_lost(world, received=6)


def test_a_call_of_one_customer_is_one_record_and_the_other_is_counted_as_none(world: World) -> None:
    world.receive(dialog(to_user=STRANGER), dialog("call-2", src_ip=STRANGERS_IP), at=NOON)
    assert posted(world) == [
        (OUT, "outbound", "caller.example.com", 60),
        ("call-2/inbound", "inbound", "called.example.com", 60),
    ]
    assert world.outcomes() == {
        ("posted", ""): 2,
        ("ignored", "not_inbound"): 1,
        ("ignored", "not_outbound"): 1,
    }
    assert_nothing_is_lost(world, received=4)


def test_a_call_that_nobody_is_known_of_is_kept_whole(world: World) -> None:
    world.receive(dialog(src_ip=STRANGERS_IP, to_user=STRANGER), at=NOON)
    assert world.outcomes() == {("quarantined", "undirected"): 2}
    replay(world.engine, world.settings, world.snapshots, Chosen())
    assert world.outcomes() == {("quarantined", "undirected"): 2}
    assert_nothing_is_lost(world, received=2)


def test_one_of_the_two_may_wait_while_the_other_is_posted(world: World) -> None:
    world.receive(dialog(src_ip=SHARED_IP), at=NOON)
    assert posted(world) == [(IN, "inbound", "called.example.com", 60)]
    assert world.outcomes() == {("posted", ""): 1, ("held", "sip_context"): 1}
    world.receive(invite("call-1", SHARED_IP, NOON, "caller.example.com"), at=NOON, topic="sip.raw")
    later = NOON + timedelta(minutes=6)
    world.receive(invite("other", SHARED_IP, NOON), at=later, topic="sip.raw")
    assert world.resolve() == 1
    assert posted(world) == [
        (OUT, "outbound", "caller.example.com", 60),
        (IN, "inbound", "called.example.com", 60),
    ]
    assert_nothing_is_lost(world, received=2)


def test_both_wait_for_an_instant_that_has_not_come_and_are_released_as_two(world: World) -> None:
    ahead = world.query("select date_trunc('milliseconds', clock_timestamp()) + interval '2 s' as at")[0].at
    world.run(last=f"{ahead:%Y-%m}")
    world.receive(dialog(at=ahead), at=ahead)
    assert world.outcomes() == {("held", "clock_ahead"): 2}
    world.query("select pg_sleep(2.2)")
    assert world.resolve() == 2
    assert [row[:3] for row in posted(world)] == [
        (OUT, "outbound", "caller.example.com"),
        (IN, "inbound", "called.example.com"),
    ]
    assert_nothing_is_lost(world, received=2)


def test_what_was_kept_because_nobody_said_which_way_is_two_records_once_it_is_said(
    world: World, database: Engine
) -> None:
    unsaid = a_world(database, on_net=None)
    unsaid.receive(dialog(), b"no JSON", at=NOON)
    assert unsaid.outcomes() == {("quarantined", "undirected"): 1, ("quarantined", "unreadable"): 1}
    for _ in range(2):
        replay(world.engine, world.settings, world.snapshots, Chosen())
        assert [row[:2] for row in posted(world)] == [(OUT, "outbound"), (IN, "inbound")]
        assert world.outcomes() == {("posted", ""): 2, ("quarantined", "unreadable"): 1}
        assert_nothing_is_lost(world, received=3)


def test_one_of_the_two_may_lack_a_tariff_and_is_replayed_alone(database: Engine) -> None:
    world = with_customers(a_world(database), "outbound_conversational")
    world.receive(dialog(), at=NOON)
    assert world.outcomes() == {("posted", ""): 1, ("quarantined", "unrated"): 1}
    with world.engine.begin() as connection:
        made_at = take_change_instant(connection)
        tariff = NewTariff(1, "inbound_conversational", LONG_AGO, "minute", Decimal("0.02"))
        add_tariff(connection, made_at, tariff)
    replay(world.engine, world.settings, world.snapshots, Chosen())
    assert [(shown(row.record_id), str(row.cost)) for row in world.ledger()] == [
        (OUT, "0.010000"),
        (IN, "0.020000"),
    ]
    assert_nothing_is_lost(world, received=2)


def test_a_batch_is_cut_between_messages_never_between_the_two_records_of_one(world: World) -> None:
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "alter table held_records add constraint refused check (call_id is distinct from 'bad')"
        )
    good = [dialog(f"call-{n}", src_ip=SHARED_IP) for n in range(3)]
    world.receive(*good, dialog("bad", src_ip=SHARED_IP), *good[:1], at=NOON)
    assert world.outcomes() == {
        ("posted", ""): 3,
        ("held", "sip_context"): 3,
        ("duplicate", ""): 2,
        ("quarantined", "refused_by_database"): 2,
    }
    assert_nothing_is_lost(world, received=10)
