"""A month closes into statements that never change, and the world is told in order (promises 3 and 4)."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine

from deploy.stack.broker import Broker
from pipeline.closer import Waiting
from pipeline.relay import relay_once, relay_producer
from rollup import audit_store
from schemas.periods import Period
from tests.acceptance.months import bodies, close, lines, try_to_close
from tests.conftest import MakeTopics
from tests.world import World, inbound, outbound, utc

SHOP, OTHER = "shop.example.com", "other.example.com"
NUMBER = "+12125550101"
FREE = "+12125550102"  # the account's, without a tenant
SHARED_IP = "198.51.100.7"
SEPTEMBER = utc("2026-09-10 12:00")
IN_TIME = utc("2026-09-12 12:00")
LATE = utc("2026-10-20 12:00")


@pytest.fixture
def carrier(world: World) -> World:
    account = world.account()
    shop = world.tenant(account, SHOP)
    world.tenant(account, OTHER)
    world.number(NUMBER, account, shop)
    world.number(FREE, account, None)
    world.ip(SHARED_IP, account)
    return world


def test_a_tenants_first_month_is_partial(world: World) -> None:
    account, joined = world.account(), utc("2026-09-10 00:00")
    shop = world.tenant(account, SHOP, made_at=joined)
    world.number(NUMBER, account, None, ended_at=joined)
    world.number(NUMBER, account, shop, made_at=joined)
    world.run("2026-08")
    for day in (9, 11):
        world.receive(inbound(str(day), NUMBER, utc(f"2026-09-{day:02} 12:00")), at=IN_TIME)
    close(world, "2026-08")
    close(world, "2026-09")
    assert set(bodies(world, "2026-08")) == {("reseller", None)}
    september = bodies(world, "2026-09")
    assert lines(september["reseller", SHOP]) == [("inbound_conversational", "2026-09", False, 1, "0.010000")]
    assert lines(september["reseller", None]) == [("inbound_conversational", "2026-09", False, 1, "0.010000")]


@pytest.mark.parametrize("written", ["2026-09-30T23:59:59.999Z", "2026-10-01T05:29:59.999+05:30"])
def test_a_call_in_the_last_millisecond_is_the_months_whatever_the_switchs_zone(
    carrier: World, written: str
) -> None:
    carrier.run()
    call = inbound("last", NUMBER, SEPTEMBER) | {"started_at": written, "answered_at": written}
    first = inbound("first", NUMBER, utc("2026-10-01 00:00"))
    carrier.receive(call, first, at=utc("2026-10-01 00:01"))
    close(carrier, "2026-09")
    assert [line[3] for line in lines(bodies(carrier, "2026-09")["reseller", SHOP])] == [1]
    close(carrier, "2026-10")
    assert [line[1:4] for line in lines(bodies(carrier, "2026-10")["reseller", SHOP])] == [
        ("2026-10", False, 1)
    ]


def test_a_late_record_changes_no_statement_and_is_in_the_next_one_under_its_own_month(
    carrier: World,
) -> None:
    carrier.run()
    carrier.receive(inbound("in time", NUMBER, SEPTEMBER), at=IN_TIME)
    close(carrier, "2026-09")
    before = bodies(carrier, "2026-09")
    late = inbound("late", NUMBER, SEPTEMBER + timedelta(hours=1))
    assert carrier.receive(late, inbound("in time", NUMBER, SEPTEMBER), at=LATE) == {
        ("posted", ""): 1,
        ("duplicate", ""): 1,
    }
    close(carrier, "2026-10")
    assert bodies(carrier, "2026-09") == before
    assert lines(bodies(carrier, "2026-10")["reseller", SHOP]) == [
        ("inbound_conversational", "2026-09", True, 1, "0.010000")
    ]
    with carrier.engine.connect() as connection:
        for month in ("2026-09", "2026-10"):
            assert all(each.same for each in audit_store.rebuild(connection, Period.parse(month)))
        assert audit_store.reconcile(connection) == ()


def test_a_tenant_that_ended_gets_a_statement_of_its_late_usage_and_otherwise_none(world: World) -> None:
    account, ended = world.account(), utc("2026-09-20 00:00")
    shop = world.tenant(account, SHOP, ended_at=ended)
    world.tenant(account, OTHER, ended_at=ended)
    world.number(NUMBER, account, shop, ended_at=ended)
    world.run()
    close(world, "2026-09")
    assert set(bodies(world, "2026-09")) == {("reseller", SHOP), ("reseller", OTHER), ("reseller", None)}
    world.receive(inbound("late", NUMBER, SEPTEMBER), at=LATE)
    close(world, "2026-10")
    october = bodies(world, "2026-10")
    assert set(october) == {("reseller", SHOP), ("reseller", None)}
    assert [line[1:4] for line in lines(october["reseller", SHOP])] == [("2026-09", True, 1)]


def test_usage_of_a_number_without_tenant_stays_unassigned_when_it_is_assigned_later(world: World) -> None:
    account, assigned = world.account(), utc("2026-09-20 00:00")
    shop = world.tenant(account, SHOP)
    world.number(FREE, account, None, ended_at=assigned)
    world.number(FREE, account, shop, made_at=assigned)
    world.run()
    world.receive(inbound("before", FREE, SEPTEMBER), at=LATE)
    world.receive(inbound("after", FREE, utc("2026-09-21 12:00")), at=LATE)
    close(world, "2026-09")
    world.receive(inbound("before, late", FREE, SEPTEMBER + timedelta(hours=1)), at=LATE)
    close(world, "2026-10")
    for month, late in (("2026-09", False), ("2026-10", True)):
        assert [line[1:4] for line in lines(bodies(world, month)["reseller", None])] == [("2026-09", late, 1)]
    assert [line[3] for line in lines(bodies(world, "2026-09")["reseller", SHOP])] == [1]
    assert lines(bodies(world, "2026-10")["reseller", SHOP]) == []


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["number", "free", "named", "default", "nobody", "rival"]),
        st.integers(0, 30 * 24 * 60 - 1),
        st.integers(0, 10**9),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=CALLS)
def test_statements_and_unassigned_usage_are_the_accounts_total(
    database: Engine, first: list[tuple[str, int, int, bool]]
) -> None:
    with emptied(database) as world:
        account, rival = world.account(), world.account("rival")
        shop = world.tenant(account, SHOP)
        world.number(NUMBER, account, shop)
        world.number(FREE, account, None)
        world.number("+12125550103", rival, world.tenant(rival, SHOP))
        world.ip(SHARED_IP, account, default=shop)
        world.run()
        expected: dict[str | None, Decimal] = defaultdict(Decimal)
        batches: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for index, (whose, minute, millionths, late) in enumerate(first):
            cost = Decimal(millionths).scaleb(-6)
            start = utc("2026-09-01 00:00") + timedelta(minutes=minute)
            batches[late].append(_call(whose, str(index), start, f"{cost:f}"))
            expected[{"nobody": None, "rival": "rival"}.get(whose, "reseller")] += cost
        world.receive(*batches[False], at=utc("2026-10-01 01:00"))
        close(world, "2026-09")
        world.receive(*batches[True], at=LATE)
        close(world, "2026-10")
        total: dict[str | None, Decimal] = defaultdict(Decimal)
        for month in ("2026-09", "2026-10"):
            for (owner, _), body in bodies(world, month).items():
                total[owner] += Decimal(orjson.loads(body)["totals"]["total_cost"])
        assert {name: total[name] for name in ("reseller", "rival")} == {
            name: expected[name] for name in ("reseller", "rival")
        }
        [unowned] = world.query(
            "select coalesce(sum(cost), 0) as c from monthly_usage where account_id is null"
        )
        assert unowned.c == expected[None]


def _call(whose: str, record_id: str, start: Any, cost: str) -> dict[str, Any]:
    match whose:
        case "named":
            return outbound(record_id, SHARED_IP, start, x_tenant=SHOP, cost=cost)
        case "default":
            return outbound(record_id, SHARED_IP, start, x_tenant="nobody.example.com", cost=cost)
        case _:
            numbers = {"number": NUMBER, "free": FREE, "rival": "+12125550103"}
            return inbound(record_id, numbers.get(whose, "+12125550109"), start, cost=cost)


@contextmanager
def emptied(engine: Engine) -> Iterator[World]:
    """A world in a copy of the empty database, so that each example has its own."""
    url = engine.url
    name = f"{url.database}_copy"
    engine.dispose()
    outside = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with outside.connect() as connection:
        connection.exec_driver_sql(f"drop database if exists {name} with (force)")
        connection.exec_driver_sql(f"create database {name} template {url.database}")
    copy = create_engine(url.set(database=name), connect_args={"options": "-c timezone=UTC"})
    try:
        yield World(copy)
    finally:
        copy.dispose()
        outside.dispose()


def test_closing_again_gives_the_same_bytes_and_tells_nobody_twice(carrier: World) -> None:
    carrier.run()
    carrier.receive(inbound("a", NUMBER, SEPTEMBER), at=IN_TIME)
    first = close(carrier, "2026-09")
    before, told = bodies(carrier, "2026-09"), carrier.query("select count(*) as n from outbox")
    again = close(carrier, "2026-09")
    assert again.month.accounts == first.month.accounts
    assert bodies(carrier, "2026-09") == before
    assert carrier.query("select count(*) as n from outbox") == told


def test_a_record_that_waits_for_its_tenant_keeps_the_month_open(carrier: World) -> None:
    carrier.run()
    held = outbound("held", SHARED_IP, SEPTEMBER)
    assert carrier.receive(held, at=SEPTEMBER) == {("held", "sip_context"): 1}
    found = try_to_close(carrier, "2026-09")
    assert isinstance(found, Waiting)
    assert any(each.text.startswith("1 records of 2026-09 are held") for each in found.blockers)
    carrier.receive(b"{}", at=IN_TIME, topic="sip.raw")
    carrier.resolve()
    close(carrier, "2026-09")
    assert [line[3] for line in lines(bodies(carrier, "2026-09")["reseller", None])] == [1]


def read_all(kafka: Broker, topic: str) -> list[Any]:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"reader-of-{topic}",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([topic])
    found = []
    try:
        while (message := consumer.poll(30)) is not None and not message.error():
            found.append(message)
    finally:
        consumer.close()
    return found


def test_subscribers_hear_of_every_statement_once_and_then_of_the_period(
    carrier: World, kafka: Broker, topics: MakeTopics
) -> None:
    names = topics(statements=1, periods=1)
    told = carrier.settings.model_copy(
        update={"statements_topic": names["statements"], "periods_topic": names["periods"]}
    )
    rival = carrier.account("rival")
    carrier.tenant(rival, SHOP)
    carrier.run()
    carrier.receive(inbound("a", NUMBER, SEPTEMBER), at=IN_TIME)
    close(carrier, "2026-09", told)
    while relay_once(carrier.engine, relay_producer(kafka.bootstrap_servers), 2):
        pass  # a new producer for each part: a relay that was restarted
    close(carrier, "2026-09", told)
    assert relay_once(carrier.engine, relay_producer(kafka.bootstrap_servers)) == 0
    statements, periods = read_all(kafka, names["statements"]), read_all(kafka, names["periods"])
    stored = carrier.query("select cast(id as text), body, sha256 from statements order by sequence")
    assert [dict(each.headers())["ce_id"].decode() for each in statements] == [row.id for row in stored]
    for event, row in zip(statements, stored, strict=True):
        value = orjson.loads(event.value())
        assert dict(event.headers())["ce_type"] == b"tenant-billing.statement.closed.v1"
        assert dict(event.headers())["ce_specversion"] == b"1.0"
        assert (value["sha256"], value["statement_id"]) == (row.sha256, row.id)
        assert hashlib.sha256(bytes(row.body)).hexdigest() == row.sha256
        assert orjson.dumps(value["statement"], option=orjson.OPT_SORT_KEYS) == bytes(row.body)
    counted = Counter(orjson.loads(each.value())["account"] for each in statements)
    last = max(each.timestamp()[1] for each in statements)
    for event in periods:
        value = orjson.loads(event.value())
        assert value["statement_count"] == counted[value["account"]]
        assert dict(event.headers())["ce_type"] == b"tenant-billing.period.closed.v1"
    assert len(periods) == 2
    assert max(each.timestamp()[1] for each in periods) >= last or not kafka.real
    order = carrier.query(
        "select topic = :periods as period, published_at from outbox order by id", periods=names["periods"]
    )
    assert all(row.published_at is not None for row in order)
    assert order[-1].period
