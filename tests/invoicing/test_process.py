"""The invoicing process: from events on Kafka to scheduled invoices, with nothing lost on the way."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from confluent_kafka import Producer
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

import pipeline.invoicer
from deploy.stack.broker import Broker
from deploy.stack.child import Child
from invoicing.listing_store import list_refused_events
from invoicing.pace import Pace
from invoicing.sandbox import Sandbox
from invoicing.states import State
from pipeline.account_locks import AccountLocks
from pipeline.cli import app
from pipeline.cli.output import EXIT_WAITING, Refused
from pipeline.clock import utc_now
from pipeline.health import Pulse
from pipeline.invoice_passes import FAILURES_IN_A_ROW_MAX, IN_FLIGHT_MIN, Scheduler
from pipeline.invoice_progress import Standing
from pipeline.invoicer import run_invoicer, stripe_gateway, work_off
from pipeline.settings import Settings
from schemas.events import STATEMENT_CLOSED, StatementClosed, cloud_event_headers
from schemas.statements import Statement, canonical_json, sha256_hex
from tests.conftest import MakeTopics
from tests.invoicing.builders import World, statement, usage, utc

BUSY = usage(seconds=60_000, cost="9.50")
PATIENCE_SECONDS = 120.0


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


def test_a_fault_of_ours_while_events_are_taken_ends_no_consumer(
    world: World, kafka: Broker, topics: MakeTopics, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = topics(statements=1)["statements"]
    body = statement(BUSY)
    world.bill(world.tenant(), utc(2026, 5, 1))
    world.close(body, world.clock())
    publish(kafka, topic, event(body))
    faults = iter([ValueError("of a kind that nobody thought of")])
    take = pipeline.invoicer.take_event

    def taken(*arguments: Any) -> Any:
        for fault in faults:
            raise fault
        return take(*arguments)

    monkeypatch.setattr(pipeline.invoicer, "take_event", taken)
    monkeypatch.setattr(pipeline.invoicer, "CONSUMER_REST_SECONDS", 0.1)
    wanted = settings(
        kafka_bootstrap_servers=kafka.bootstrap_servers, statements_topic=topic, stripe_api_base=sandbox.url
    )
    with running(world, wanted):
        eventually(lambda: scheduled(world) == 1)


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


def scheduler(world: World, **options: Any) -> Scheduler:
    stop = threading.Event()
    pace = Pace(options.pop("per_second", 500), time.monotonic, stop.wait)
    gateway = world.gateway(limiter=pace, **options)
    return Scheduler(world.invoicer(gateway), stop, Pulse(time.monotonic), pace)


def an_account_of(world: World, code: str, statements: int) -> tuple[int, list[UUID]]:
    account_id = world.account(code, f"acct_{code}")
    made = []
    for serial in range(statements):
        tenant = f"t{serial}.{code}.example.com"
        world.bill(world.tenant(tenant, account_id=account_id), utc(2026, 5, 1))
        made.append(world.received(BUSY, tenant=tenant, account=code))
    return account_id, made


def test_an_accounts_invoices_are_worked_on_several_at_once_and_a_tenants_one_after_another(
    world: World, sandbox: Sandbox
) -> None:
    account_id, statements = an_account_of(world, "busy", 12)
    statements.append(
        world.received(
            usage(seconds=600, cost="9", period="2026-04"),
            period="2026-04",
            tenant="t0.busy.example.com",
            account="busy",
        )
    )
    sandbox.traffic.set_latency(0.03)
    assert scheduler(world).run_pass(account_id)
    assert {world.listed(each).state for each in statements} == {State.SCHEDULED}
    assert sandbox.traffic.busiest["acct_busy"] >= IN_FLIGHT_MIN
    assert len(world.in_stripe("acct_busy")) == 13
    assert len(sandbox.books("acct_busy").customers) == 12


def test_accounts_whose_stripe_hangs_do_not_hold_up_the_others(world: World, sandbox: Sandbox) -> None:
    hanging = [an_account_of(world, f"slow{number}", 5) for number in range(6)]
    quick_id, quick = an_account_of(world, "quick", 3)
    assert quick_id > max(account_id for account_id, _ in hanging)
    let_go = threading.Event()
    for account_id, _ in hanging:
        sandbox.traffic.hold(f"acct_slow{account_id - hanging[0][0]}", let_go)
    running_one = scheduler(world)
    thread = threading.Thread(target=running_one.run, args=(0.02,))
    thread.start()
    try:
        eventually(lambda: {world.listed(each).state for each in quick} == {State.SCHEDULED})
        waiting = {world.listed(each).state for _, statements in hanging for each in statements}
        assert waiting <= {State.RECEIVED, State.DRAFTING}
    finally:
        let_go.set()
        running_one.stop.set()
        thread.join(PATIENCE_SECONDS)


def test_an_account_whose_stripe_is_down_rests_and_its_rows_wait(world: World, sandbox: Sandbox) -> None:
    account_id, statements = an_account_of(world, "down", FAILURES_IN_A_ROW_MAX + 20)
    fault = {"action": "status", "status": 503, "times": None, "method": ""}
    sandbox.set_faults({**fault, "account": "acct_down"})
    assert not scheduler(world, per_second=20).run_pass(account_id)
    tried = [each for each in statements if world.listed(each).reason == "Stripe answered 503"]
    assert FAILURES_IN_A_ROW_MAX <= len(tried) < len(statements)


def test_a_fault_now_and_then_delays_its_own_invoice_only(world: World, sandbox: Sandbox) -> None:
    account_id, statements = an_account_of(world, "hiccup", 12)
    sandbox.set_faults({"action": "status", "status": 503, "path": "/v1/invoices$", "times": 3})
    assert scheduler(world).run_pass(account_id)
    states = [world.listed(each).state for each in statements]
    assert (states.count(State.SCHEDULED), states.count(State.DRAFTING)) == (9, 3)


def test_a_row_that_cannot_be_worked_is_put_off_and_holds_up_no_other(world: World) -> None:
    account_id, statements = an_account_of(world, "odd", 3)
    with world.engine.begin() as connection:
        connection.execute(
            text("update invoices set lines = '[{}]' where statement_id = :id"), {"id": statements[0]}
        )
    assert scheduler(world).run_pass(account_id)
    assert [world.listed(each).state for each in statements] == ["received", "scheduled", "scheduled"]
    assert world.listed(statements[0]).reason == "unexpected: ValidationError; the log says more"
    assert world.listed(statements[0]).due_at > world.clock()


def test_an_account_is_worked_on_by_one_process_until_its_connection_is_lost(world: World) -> None:
    account_id, statements = an_account_of(world, "shared", 1)
    others, ours = AccountLocks(world.engine), scheduler(world)
    assert others.take(account_id)
    assert ours.run_pass(account_id)
    assert world.listed(statements[0]).state == State.RECEIVED
    with world.engine.begin() as connection:
        connection.execute(
            text(
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database = "
                "(select oid from pg_database where datname = current_database())"
            )
        )
    eventually(lambda: ours.run_pass(account_id) and world.listed(statements[0]).state == State.SCHEDULED)
    with pytest.raises(DBAPIError):
        others.check()
    assert not others.holds(account_id)
    others.close()


def test_what_another_process_is_at_work_on_is_left_to_it_and_not_waited_for(
    world: World, sandbox: Sandbox
) -> None:
    taken_id, (theirs,) = an_account_of(world, "taken", 1)
    _, (ours,) = an_account_of(world, "free", 1)
    others, stop = AccountLocks(world.engine), threading.Event()
    assert others.take(taken_id)
    wanted = settings(stripe_api_base=sandbox.url, stripe_api_key=None)
    thread = threading.Thread(target=work_off, args=(wanted, world.engine, stop, lambda _: None, world.clock))
    thread.start()
    thread.join(PATIENCE_SECONDS)
    ended = not thread.is_alive()
    stop.set()
    thread.join()
    others.close()
    assert ended
    assert (world.listed(theirs).state, world.listed(ours).state) == (State.RECEIVED, State.SCHEDULED)


def test_how_far_an_account_is_and_how_long_it_may_take_is_told(world: World, sandbox: Sandbox) -> None:
    an_account_of(world, "told", 5)
    told: list[Standing] = []
    wanted = settings(stripe_api_base=sandbox.url, stripe_api_key=None)
    work_off(wanted, world.engine, threading.Event(), told.append, world.clock)
    assert (told[-1].account, told[-1].done, told[-1].left, told[-1].seconds_left) == ("told", 5, 0, 0)
    assert str(replace(told[-1], left=1_234, seconds_left=300.0)).endswith("about 5 min left")


def test_the_command_line_works_off_what_is_due_and_says_what_is_left(
    world: World, database_url: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("STRIPE_API_BASE", sandbox.url)
    sandbox.set_clock(utc_now())
    invoke = partial(CliRunner().invoke, app, ["invoice", "run"], catch_exceptions=False)
    assert "nothing was due" in invoke().output
    _, (statement_id, *_) = an_account_of(world, "byhand", 3)
    assert "byhand: 3 of 3 invoices, " in invoke().output
    assert world.listed(statement_id).state == State.SCHEDULED
    an_account_of(world, "heldup", 1)
    sandbox.set_faults({"action": "status", "status": 503, "times": None, "account": "acct_heldup"})
    with pytest.raises(Refused, match="1 invoices are left") as refused:
        invoke()
    assert refused.value.exit_code == EXIT_WAITING


FROZEN = """
import signal, sys, time
from pipeline.signals import dying_when_frozen
with dying_when_frozen(2.0) as alive:
    while True:
        alive()
        sys.stdout.write(f"{time.monotonic()}\\n")
        sys.stdout.flush()
        time.sleep(0.05)
"""


def test_a_process_that_was_frozen_too_long_dies_before_it_does_anything(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as output:
        child = Child([sys.executable, "-c", FROZEN], stdout=output)
    eventually(lambda: len(said.read_text().splitlines()) > 2)
    child.process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)  # what was written before it stopped
    before = said.read_text()
    time.sleep(2.5)
    child.process.send_signal(signal.SIGCONT)
    assert child.process.wait(PATIENCE_SECONDS) == -signal.SIGALRM
    assert said.read_text() == before
