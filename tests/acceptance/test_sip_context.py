"""The SIP event that speaks for a call, told by Kafka's timestamps alone (A10): whatever comes late, twice or never."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from pipeline.resolver import resolve_once
from pipeline.settings import InputTopic
from schemas.network import address
from tests.world import World, inbound, invite, outbound, utc

NOON = utc("2026-10-10 12:00")
RECEIVED = NOON + timedelta(minutes=10)
WAIT = timedelta(minutes=5)
MOMENT = timedelta(milliseconds=1)
BIG, SMALL = "big.example.com", "small.example.com"
SHARED_IP, OUR_EDGE, THIEF = "198.51.100.7", "203.0.113.1", "198.51.100.66"
CALL = outbound(
    "a", SHARED_IP, NOON, call_id="one@example.com", ended_at=(NOON + timedelta(minutes=1)).isoformat()
)
SOURCELESS = {name: value for name, value in CALL.items() if name != "source_ip"}

Arrival = tuple[str, datetime, dict[str, Any]]  # topic, Kafka's timestamp, what


@pytest.fixture
def carrier(world: World) -> World:
    return furnish(world)


def furnish(world: World) -> World:
    """An account with two tenants behind one shared IP, and a thief's account with its own."""
    reseller, thief = world.account(), world.account("thief")
    world.tenant(reseller, BIG)
    world.tenant(reseller, SMALL)
    world.tenant(thief, BIG)
    world.ip(SHARED_IP, reseller)
    world.ip(THIEF, thief)
    return world.run()


def event(
    tenant: str | None = BIG, source: str = SHARED_IP, seen: datetime = NOON, cseq: int = 1
) -> dict[str, Any]:
    return invite("one@example.com", source, seen, tenant, cseq)


def arrive(world: World, *arrivals: Arrival) -> None:
    for topic, at, what in arrivals:
        world.receive(what, at=at, topic=topic)


def sip_goes_on(world: World, at: datetime) -> None:
    """SIP events have been read up to an instant, and there are more."""
    world.receive(invite("other@example.com", SHARED_IP, NOON), at=at, topic="sip.raw")
    world.logs.unread["sip.raw", 0] = 1_000_000


def tenants(world: World) -> list[str | None]:
    return [row.tenant for row in world.ledger()]


@pytest.mark.parametrize(
    ("before_or_after", "tenant"),
    [
        (-timedelta(hours=1), BIG),
        (-MOMENT, BIG),
        (timedelta(0), BIG),
        (MOMENT, BIG),
        (WAIT, BIG),
        (WAIT + MOMENT, None),
        (timedelta(hours=1), None),
    ],
    ids=[
        "long before",
        "before",
        "at once",
        "after",
        "at the end of the wait",
        "just too late",
        "long after",
    ],
)
@pytest.mark.parametrize("call_read_first", [True, False])
def test_when_kafka_received_the_event_decides_and_not_which_topic_was_read_first(
    carrier: World, *, before_or_after: timedelta, tenant: str | None, call_read_first: bool
) -> None:
    arrivals: list[Arrival] = [
        ("calls.raw", RECEIVED, CALL),
        ("sip.raw", RECEIVED + before_or_after, event()),
    ]
    arrive(carrier, *(arrivals if call_read_first else reversed(arrivals)))
    carrier.resolve()
    assert tenants(carrier) == [tenant]


def test_without_any_event_the_call_is_decided_once_the_wait_has_been_read_past(carrier: World) -> None:
    arrive(carrier, ("calls.raw", RECEIVED, CALL))
    for minutes in (0, 4, 5):
        sip_goes_on(carrier, RECEIVED + timedelta(minutes=minutes))
        carrier.resolve()
        assert tenants(carrier) == []
    sip_goes_on(carrier, RECEIVED + WAIT + MOMENT)
    carrier.resolve()
    assert [row.reason for row in carrier.ledger()] == ["no_tenant_header"]


def test_an_event_captured_twice_is_one(carrier: World) -> None:
    arrive(carrier, *[("sip.raw", NOON, event())] * 2, ("calls.raw", RECEIVED, SOURCELESS))
    carrier.resolve()
    assert tenants(carrier) == [BIG]


def test_an_authentication_retry_speaks_for_the_call_though_it_comes_later_or_first(carrier: World) -> None:
    arrive(
        carrier,
        ("sip.raw", NOON, event(SMALL, cseq=2, seen=NOON + timedelta(seconds=1))),
        ("sip.raw", NOON, event(BIG, cseq=1)),
        ("calls.raw", RECEIVED, CALL),
    )
    carrier.resolve()
    assert tenants(carrier) == [SMALL]


def test_a_retry_received_after_the_record_does_not_unsay_the_first_attempt(carrier: World) -> None:
    """What was received by then decides; later ones change nothing, however far the other topic had been read."""
    arrive(
        carrier,
        ("sip.raw", NOON, event(BIG, cseq=1)),
        ("sip.raw", RECEIVED + MOMENT, event(SMALL, cseq=2)),
        ("calls.raw", RECEIVED, CALL),
    )
    carrier.resolve()
    assert tenants(carrier) == [BIG]


def test_of_several_hops_the_first_seen_speaks_and_our_own_copies_do_not(database: Engine) -> None:
    edges = frozenset({address(OUR_EDGE)})
    world = furnish(
        World(
            database,
            inputs=(
                InputTopic(topic="calls.raw", kind="calls", edge_addresses=edges),
                InputTopic(topic="sip.raw", kind="sip"),
            ),
        )
    )
    arrive(
        world,
        ("sip.raw", NOON, event(SMALL, OUR_EDGE, cseq=7, seen=NOON - timedelta(seconds=1))),
        ("sip.raw", NOON, event(SMALL, seen=NOON + timedelta(milliseconds=20))),
        ("sip.raw", NOON, event(BIG, seen=NOON)),
        ("calls.raw", RECEIVED, SOURCELESS),
    )
    world.resolve()
    assert tenants(world) == [BIG]


def test_several_hops_without_known_edges_are_ambiguous_and_nobody_guesses(carrier: World) -> None:
    arrive(
        carrier,
        ("sip.raw", NOON, event()),
        ("sip.raw", NOON, event(BIG, OUR_EDGE)),
        ("calls.raw", RECEIVED, SOURCELESS),
    )
    carrier.resolve()
    [row] = carrier.ledger()
    assert (row.account, row.reason) == (None, "ambiguous_context")


def test_a_call_id_used_again_a_day_later_is_another_call(carrier: World) -> None:
    tomorrow = timedelta(days=1)
    again = {
        **CALL,
        "id": "b",
        "started_at": (NOON + tomorrow).isoformat(),
        "answered_at": None,
        "ended_at": None,
    }
    arrive(
        carrier,
        ("sip.raw", NOON, event(BIG)),
        ("calls.raw", RECEIVED, CALL),
        ("sip.raw", NOON + tomorrow, event(SMALL, seen=NOON + tomorrow, cseq=9)),
        ("calls.raw", RECEIVED + tomorrow, again),
    )
    carrier.resolve()
    assert tenants(carrier) == [BIG, SMALL]


@pytest.mark.parametrize("honest", [True, False], ids=["beside the caller's own event", "alone"])
def test_someone_elses_address_cannot_steal_a_call_by_its_call_id(carrier: World, *, honest: bool) -> None:
    stolen = ("sip.raw", NOON, event(SMALL, THIEF, seen=NOON - timedelta(seconds=1), cseq=99))
    own = [("sip.raw", NOON, event(BIG))] if honest else []
    arrive(carrier, stolen, *own, ("calls.raw", RECEIVED, CALL))
    carrier.resolve()
    [row] = carrier.ledger()
    assert (row.account, row.tenant) == ("reseller", BIG if honest else None)


def test_a_call_without_source_that_two_addresses_claim_is_nobodys(carrier: World) -> None:
    arrive(
        carrier,
        ("sip.raw", NOON, event(BIG)),
        ("sip.raw", NOON, event(BIG, THIEF)),
        ("calls.raw", RECEIVED, SOURCELESS),
    )
    carrier.resolve()
    [row] = carrier.ledger()
    assert (row.account, row.tenant, row.reason) == (None, None, "ambiguous_context")


def test_sip_an_hour_behind_calls_after_an_outage_is_waited_for(carrier: World) -> None:
    hour = timedelta(hours=1)
    sip_goes_on(carrier, RECEIVED - hour)
    arrive(carrier, ("calls.raw", RECEIVED, CALL))
    carrier.resolve()
    assert carrier.outcomes()["held", "sip_context"] == 1
    arrive(carrier, ("sip.raw", RECEIVED - timedelta(minutes=9), event()))
    carrier.resolve()
    assert tenants(carrier) == []
    sip_goes_on(carrier, RECEIVED + MOMENT)
    carrier.resolve()
    assert tenants(carrier) == [BIG]


def test_calls_an_hour_behind_sip_do_not_see_what_came_too_late_for_them(carrier: World) -> None:
    arrive(
        carrier,
        ("sip.raw", RECEIVED + WAIT + MOMENT, event(SMALL, cseq=2)),
        ("sip.raw", RECEIVED + timedelta(hours=1), invite("other@example.com", SHARED_IP, NOON)),
        ("calls.raw", RECEIVED, CALL),
    )
    carrier.resolve()
    assert [row.reason for row in carrier.ledger()] == ["no_tenant_header"]


def test_a_partition_that_was_never_read_holds_everything_up(carrier: World) -> None:
    arrive(carrier, ("sip.raw", NOON, event()), ("calls.raw", RECEIVED, CALL))
    carrier.logs.unread["sip.raw", 1] = 0
    carrier.resolve()
    assert tenants(carrier) == []


STORY: Sequence[Arrival] = (
    ("sip.raw", NOON, event(BIG)),
    ("calls.raw", RECEIVED, CALL),
    ("calls.raw", RECEIVED, CALL),
    ("sip.raw", RECEIVED + MOMENT, event(SMALL, cseq=2)),
    ("calls.raw", RECEIVED + timedelta(minutes=1), {**SOURCELESS, "id": "b"}),
    ("calls.raw", RECEIVED + timedelta(minutes=2), {**CALL, "id": "c", "call_id": "never@example.com"}),
    ("sip.raw", RECEIVED + timedelta(minutes=30), invite("never@example.com", SHARED_IP, NOON, BIG)),
)


def test_a_replay_from_the_beginning_changes_nothing(carrier: World) -> None:
    arrive(carrier, *STORY)
    carrier.resolve()
    before = [(row.record_id, row.tenant, row.reason, row.received_at) for row in carrier.ledger()]
    assert [row[1:3] for row in before] == [(BIG, None), (SMALL, None), (None, "no_tenant_header")]
    with carrier.engine.begin() as connection:
        connection.execute(text("update stream_positions set next_offset = 0"))
    arrive(carrier, *STORY)
    carrier.resolve()
    assert [(row.record_id, row.tenant, row.reason, row.received_at) for row in carrier.ledger()] == before
    assert carrier.outcomes()["posted", ""] == 3
    assert carrier.outcomes()["duplicate", ""] == 1 + 4


def test_a_replay_into_an_empty_ledger_calls_first_or_sip_first_gives_the_same_outcomes(
    database: Engine,
) -> None:
    by_topic = sorted(STORY, key=lambda each: each[0], reverse=True)
    world = furnish(World(database))
    arrive(world, *by_topic)
    world.resolve()
    assert [(row.record_id, row.tenant, row.reason) for row in world.ledger()] == [
        ("a", BIG, None),
        ("b", SMALL, None),
        ("c", None, "no_tenant_header"),
    ]


def test_held_calls_survive_a_restart(carrier: World) -> None:
    arrive(carrier, ("calls.raw", RECEIVED, CALL))
    restarted = World(carrier.engine)
    arrive(restarted, ("sip.raw", RECEIVED + MOMENT, event()))
    restarted.resolve()
    assert tenants(restarted) == [BIG]
    assert restarted.outcomes() == {("context", ""): 1, ("posted", ""): 1}


def test_two_resolvers_at_once_release_each_held_call_once(carrier: World) -> None:
    calls = [{**CALL, "id": str(number)} for number in range(300)]
    carrier.receive(*calls, at=RECEIVED)
    arrive(carrier, ("sip.raw", RECEIVED, event()))
    others = [World(carrier.engine) for _ in range(4)]

    def resolve(world: World) -> int:
        return resolve_once(world.settings, world.engine, world.snapshots, world.logs)  # type: ignore[arg-type]

    with ThreadPoolExecutor(len(others)) as pool:
        released = list(pool.map(resolve, others))
    assert sum(released) == 300
    assert tenants(carrier) == [BIG] * 300
    assert carrier.outcomes() == {("context", ""): 1, ("posted", ""): 300}
    [usage] = carrier.query("select sum(attempts)::int as attempts from monthly_usage")
    assert usage.attempts == 300


def test_only_what_needs_it_waits(carrier: World) -> None:
    carrier.receive(
        outbound("named", SHARED_IP, NOON, x_tenant=BIG),
        inbound("inbound", "+12125550101", NOON),
        CALL,
        at=RECEIVED,
    )
    assert [row.record_id for row in carrier.ledger()] == ["inbound", "named"]
    assert carrier.outcomes()["held", "sip_context"] == 1
