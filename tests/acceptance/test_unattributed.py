"""In one look: which number nobody assigned, which IP should be shared, which name was probably meant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.explain import explain
from pipeline.explain_context import sip_reading
from pipeline.settings import InputTopic
from rollup.unattributed_store import Unattributed, unattributed
from schemas.network import address
from schemas.periods import Period
from tests.world import World, inbound, invite, outbound, utc

NOON = utc("2026-10-10 12:00")
LATER = NOON + timedelta(minutes=10)
BIG = "bigcustomer.mypbx.com"
SHARED_IP = "198.51.100.7"
OUR_EDGE = "203.0.113.1"
_examples = count(1)


def listed(world: World, account: str | None = None) -> tuple[Unattributed, ...]:
    with world.engine.connect() as connection:
        return unattributed(connection, Period(2026, 10), account, sip_reading(world.settings))


def test_usage_is_summed_by_reason_account_and_asset_ignored_headers_included(world: World) -> None:
    reseller = world.account()
    world.tenant(reseller, BIG)
    world.ip(SHARED_IP, reseller)
    world.ip("192.0.2.1", reseller, world.tenant(reseller, "owner.example.com"))
    world.number("+12125550102", reseller, None)
    world.run()
    world.receive(
        *(inbound(f"nobody-{n}", "+12125550101", NOON + timedelta(minutes=n)) for n in range(4)),
        *(inbound(f"unassigned-{n}", "+12125550102", NOON) for n in range(3)),
        *(outbound(f"ignored-{n}", "192.0.2.1", NOON, x_tenant=BIG) for n in range(2)),
        outbound("unknown", SHARED_IP, NOON, x_tenant=f'"{BIG.upper()}"'),
        at=LATER,
    )
    found = listed(world)
    assert [
        (each.reason, each.account, each.asset, each.named, each.near_match, each.records) for each in found
    ] == [
        ("number_not_assigned", None, "+12125550101", None, None, 4),
        ("number_without_tenant", "reseller", "+12125550102", None, None, 3),
        ("header_ignored", "reseller", "192.0.2.1", BIG, None, 2),
        ("unknown_tenant", "reseller", SHARED_IP, f'"{BIG.upper()}"', BIG, 1),
    ]
    assert (str(found[0].cost), found[0].first_at, found[0].last_at) == (
        "0.040000",
        NOON,
        NOON + timedelta(minutes=3),
    )
    assert [each.reason for each in listed(world, "reseller")] == [each.reason for each in found[1:]]


def test_a_name_and_a_source_that_came_by_sip_event_are_listed_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reseller = world.account()
    world.tenant(reseller, BIG)
    world.ip(SHARED_IP, reseller)
    world.run()
    world.receive(
        invite("one@example.com", SHARED_IP, NOON, f"<{BIG.title()}>"),
        invite("two@example.com", "203.0.113.9", NOON, BIG),
        at=NOON,
        topic="sip.raw",
    )
    world.receive(
        outbound("a", SHARED_IP, NOON, call_id="one@example.com"),
        outbound("b", None, NOON, call_id="one@example.com"),
        outbound("c", None, NOON, call_id="two@example.com"),
        at=LATER,
    )
    world.resolve()
    assert [
        (each.reason, each.asset, each.named, each.near_match, each.records) for each in listed(world)
    ] == [
        ("unknown_tenant", SHARED_IP, f"<{BIG.title()}>", BIG, 2),
        ("ip_not_assigned", "203.0.113.9", None, None, 1),
    ]
    monkeypatch.setenv("DATABASE_URL", world.engine.url.render_as_string(hide_password=False))
    rows = json.loads(CliRunner().invoke(app, ["unattributed", "--json"]).stdout)
    assert [(row["asset"], row["near_match"]) for row in rows] == [(SHARED_IP, BIG), ("203.0.113.9", None)]


def test_a_tenant_made_after_the_calls_or_of_another_account_is_no_near_match(world: World) -> None:
    reseller, rival = world.account(), world.account("rival")
    world.tenant(reseller, "Later.example.com", made_at=LATER)
    world.tenant(rival, "Rival.example.com")
    world.ip(SHARED_IP, reseller)
    world.run()
    names = ("later.example.com", "rival.example.com")
    world.receive(*(outbound(name, SHARED_IP, NOON, x_tenant=name) for name in names), at=LATER)
    assert [(each.named, each.near_match) for each in listed(world)] == [(name, None) for name in names]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([SHARED_IP, "198.51.100.8", OUR_EDGE]),
        st.sampled_from([None, "", " ", "x", "y", " z\t"]),
        st.integers(1, 2),
        st.sampled_from([-61, -60, 0, 1, 59, 61]),  # seconds from the call's start to where it was seen
        st.sampled_from(
            [-36 * 86_400, -35 * 86_400, -60, 0, 1, 300, 301]
        ),  # from the record to its reception
    ),
    max_size=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, source=st.sampled_from([SHARED_IP, None]), ended=st.sampled_from([None, 5]))
def test_the_summary_names_what_the_rule_of_sip_events_names(
    database: Engine,
    events: Sequence[tuple[str, str | None, int, int, int]],
    source: str | None,
    ended: int | None,
) -> None:
    edges = InputTopic(topic="calls.raw", kind="calls", edge_addresses=frozenset({address(OUR_EDGE)}))
    world = World(database, inputs=(edges, InputTopic(topic="sip.raw", kind="sip")))
    if not world.query("select from accounts"):
        world.ip("198.51.100.0/24", world.account())
        world.run()
        world.receive(None, at=NOON, topic="sip.raw")
    name = f"example-{next(_examples)}"
    for from_ip, tenant, cseq, seen, received in events:
        named = None if tenant is None else f"{tenant}{name}" if tenant.strip() else tenant
        event = invite(name, from_ip, NOON + timedelta(seconds=seen), named, cseq)
        world.receive(event, at=LATER + timedelta(seconds=received), topic="sip.raw")
    end: dict[str, Any] = {} if ended is None else {"ended_at": _text(NOON + timedelta(seconds=ended))}
    world.receive(outbound(name, source, NOON, call_id=name, answered_seconds="1", **end), at=LATER)
    world.resolve()
    with world.engine.connect() as connection:
        [explained] = explain(connection, world.settings, "sbc-1", name)
    assert explained.whose is not None
    rows = [each for each in listed(world) if each.named and each.named.endswith(name)]
    by_name = explained.whose.reason == "unknown_tenant"
    assert [each.named for each in rows] == ([explained.whose.header] if by_name else [])
    if by_name and explained.sip_event is not None:
        assert rows[0].asset == explained.sip_event.source_ip


def _text(instant: datetime) -> str:
    return instant.isoformat()
