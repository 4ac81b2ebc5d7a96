"""The invoicing process: from events on Kafka to scheduled invoices, with nothing lost on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from deploy.stack.broker import Broker
from invoicing.listing_store import list_refused_events
from invoicing.pace import Pace
from invoicing.sandbox import Sandbox
from invoicing.states import State
from pipeline.invoicer import run_invoicer, stripe_gateway
from pipeline.settings import Settings
from schemas.events import STATEMENT_CLOSED, StatementClosed, cloud_event_headers
from schemas.statements import Statement, canonical_json, sha256_hex
from tests.conftest import MakeTopics
from tests.invoicing.builders import World, statement, usage, utc

BUSY = usage(seconds=60_000, cost="9.50")
PATIENCE_SECONDS = 30.0


def event(body: Statement) -> bytes:
    return canonical_json(
        StatementClosed(
            statement_id=body.statement_id,
            kind=body.kind,
            account=body.account,
            tenant=body.tenant,
            period=body.period,
            currency=body.currency,
            total_cost=body.totals.total_cost,
            sha256=sha256_hex(body.canonical_bytes()),
            closed_at=utc(2026, 6, 3),
            statement=body,
        )
    )


def publish(kafka: Broker, topic: str, *values: bytes, event_type: str = STATEMENT_CLOSED) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for value in values:
        headers = cloud_event_headers("1", event_type, "statement", utc(2026, 6, 3))
        producer.produce(topic, value, key=b"reseller", headers=list(headers.items()))
    assert producer.flush(10) == 0


def settings(**fields: Any) -> Settings:
    return Settings(
        invoicer_interval_seconds=0.05, consumer_group=f"test-{fields.get('statements_topic')}", **fields
    )


@contextmanager
def running(world: World, wanted: Settings) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=run_invoicer, args=(wanted, world.engine, stop, world.clock))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def scheduled(world: World) -> int:
    return sum(invoice["auto_advance"] for invoice in world.in_stripe())


def test_events_become_invoices_and_what_cannot_be_read_is_kept_and_stops_nothing(
    world: World, kafka: Broker, topics: MakeTopics, sandbox: Sandbox
) -> None:
    topic = topics(statements=1)["statements"]
    bodies = [statement(BUSY, tenant=f"t{i}.example.com") for i in range(3)]
    for body in bodies:
        world.bill(world.tenant(str(body.tenant)), utc(2026, 5, 1))
    unassigned, never_stored = statement(BUSY, tenant=None), statement(BUSY, tenant="ghost.example.com")
    for body in (*bodies, unassigned):
        world.close(body, world.clock())
    altered = orjson.loads(event(bodies[0])) | {"sha256": "0" * 64}
    newer = orjson.loads(event(bodies[0])) | {"version": 2}
    publish(
        kafka, topic, b"{not json", orjson.dumps(newer), event(bodies[0]), event(bodies[0]), event(unassigned)
    )
    publish(kafka, topic, event(bodies[1]), event_type="tenant-billing.statement.closed.v2")
    publish(kafka, topic, event(never_stored), orjson.dumps(altered), event(bodies[1]), event(bodies[2]))
    wanted = settings(
        kafka_bootstrap_servers=kafka.bootstrap_servers, statements_topic=topic, stripe_api_base=sandbox.url
    )
    with running(world, wanted):
        eventually(lambda: scheduled(world) == len(bodies))
    with running(world, wanted):
        publish(kafka, topic, event(bodies[2]))
    assert len(world.in_stripe()) == len(bodies)
    with world.engine.begin() as connection:
        reasons = [refused.reason for refused in list_refused_events(connection)]
    assert reasons == ["malformed", "unknown_version", "unknown_version", "no_such_statement", "other_bytes"]


def test_one_accounts_outage_does_not_hold_up_another(
    world: World, kafka: Broker, topics: MakeTopics, sandbox: Sandbox
) -> None:
    topic = topics(statements=1)["statements"]
    other = world.account("other", "acct_other")
    world.bill(world.tenant("a.example.com"), utc(2026, 5, 1))
    world.bill(world.tenant("b.example.com", account_id=other), utc(2026, 5, 1))
    sandbox.books("acct_reseller").linked = False
    first = world.received(BUSY, tenant="a.example.com")
    second = world.received(BUSY, tenant="b.example.com", account="other")
    wanted = settings(
        kafka_bootstrap_servers=kafka.bootstrap_servers, statements_topic=topic, stripe_api_base=sandbox.url
    )
    with running(world, wanted):
        eventually(lambda: world.listed(second).state == State.SCHEDULED)
        eventually(lambda: world.listed(first).paused_reason is not None)


def test_without_a_key_and_without_a_sandbox_it_refuses_to_start() -> None:
    with pytest.raises(ValueError, match="STRIPE_API_KEY, or STRIPE_API_BASE"):
        stripe_gateway(settings(stripe_api_key=None, stripe_api_base=None))


def test_a_live_key_is_never_sent_in_the_clear() -> None:
    with pytest.raises(ValueError, match="https") as refused:
        stripe_gateway(settings(stripe_api_key="sk_live_example", stripe_api_base="http://127.0.0.1:1"))
    assert "sk_live_example" not in str(refused.value)


def test_requests_of_one_stripe_account_keep_the_pace_and_others_do_not_wait() -> None:
    clock, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    pace = Pace(20, lambda: clock[0], sleep)
    for _ in range(120):
        pace.admit("acct_a")
    assert clock[0] == pytest.approx((120 - 20) / 20)
    waits = len(slept)
    pace.admit("acct_b")
    assert len(slept) == waits
