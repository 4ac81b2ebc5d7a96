"""From a closed month to scheduled invoices: each statement asked for once, whatever dies on the way (promise 5)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from deploy.stack.broker import Broker
from deploy.stack.child import Child
from invoicing import setup_store
from invoicing.sandbox import Sandbox
from invoicing.schedule import send_instant
from pipeline.invoicer import run_invoicer
from pipeline.relay import relay_once, relay_producer
from rollup.months_store import database_now
from tests.acceptance.months import close
from tests.conftest import MakeTopics
from tests.invoicing.builders import World as Invoicing
from tests.invoicing.builders import profile, usage, utc
from tests.services import service
from tests.world import World, inbound
from tests.world import utc as instant

SEPTEMBER = instant("2026-09-10 12:00")
IN_TIME = instant("2026-09-12 12:00")
STRIPE = "acct_reseller"
MINUTES = {
    "kind": "minutes",
    "description": "Inbound minutes",
    "usage_classes": ["inbound_conversational"],
    "price": "0.35",
}
FLAT = {"kind": "flat", "description": "Platform", "price": "25"}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox().start() as running:
        yield running


class Reseller:
    """An account with Stripe, its tenants, a broker, and whoever makes invoices of it."""

    def __init__(
        self,
        database: Engine,
        database_url: str,
        kafka: Broker,
        topics: dict[str, str],
        sandbox: Sandbox,
        folder: Path,
    ) -> None:
        named = {"statements_topic": topics["statements"], "periods_topic": topics["periods"]}
        self.world = World(
            database,
            kafka_bootstrap_servers=kafka.bootstrap_servers,
            consumer_group=f"group-{topics['statements']}",
            stripe_api_base=sandbox.url,
            stripe_api_key=None,
            invoicer_interval_seconds=0.05,
            **named,
        )
        self.sandbox, self.folder = sandbox, folder
        self.account = self.world.account()
        with database.begin() as connection:
            setup_store.link_stripe(connection, self.account, STRIPE, database_now(connection))
        self.environment = {
            **os.environ,  # noqa: TID251 (passed on to the process)
            "DATABASE_URL": database_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "STRIPE_API_BASE": sandbox.url,
            "TENANT_BILLING_STATEMENTS_TOPIC": topics["statements"],
            "TENANT_BILLING_PERIODS_TOPIC": topics["periods"],
            "TENANT_BILLING_CONSUMER_GROUP": self.world.settings.consumer_group,
            "TENANT_BILLING_STRIPE_REQUESTS_PER_SECOND_MAX": "1000",
            "TENANT_BILLING_INVOICER_INTERVAL_SECONDS": "0.05",
            "TENANT_BILLING_SESSION_TIMEOUT_SECONDS": "6",
        }
        self._processes = 0

    def tenant(self, code: str, number: str, billing_day: int = 20) -> int:
        tenant = self.world.tenant(self.account, code)
        self.world.number(number, self.account, tenant)
        with self.world.engine.begin() as connection:
            made = profile(FLAT, MINUTES, billing_day=billing_day)
            setup_store.make_profile(connection, tenant, made, database_now(connection))
        return tenant

    def close_and_tell(self, month: str) -> None:
        close(self.world, month)
        producer = relay_producer(self.world.settings.kafka_bootstrap_servers)
        while relay_once(self.world.engine, producer):
            pass

    @contextmanager
    def invoicer(self) -> Iterator[None]:
        stop = threading.Event()
        arguments = (self.world.settings, self.world.engine, stop)
        thread = threading.Thread(target=run_invoicer, args=arguments)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()

    @contextmanager
    def invoicer_process(self) -> Iterator[Child]:
        self._processes += 1
        log = self.folder / f"invoicer-{self._processes}.log"
        with service("invoicer", self.environment, log) as child:
            yield child

    def states(self) -> list[str]:
        return [row.state for row in self.world.query("select state from invoices order by statement_id")]

    def in_stripe(self) -> list[dict[str, Any]]:
        return list(self.sandbox.books(STRIPE).invoices.values())


@pytest.fixture
def reseller(
    database: Engine, database_url: str, kafka: Broker, topics: MakeTopics, sandbox: Sandbox, tmp_path: Path
) -> Reseller:
    return Reseller(database, database_url, kafka, topics(statements=2, periods=1), sandbox, tmp_path)


def wait_until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_closed_month_becomes_drafts_that_are_verified_and_scheduled(reseller: Reseller) -> None:
    days = {"a.example.com": 1, "b.example.com": 31}
    for index, (code, day) in enumerate(days.items()):
        reseller.tenant(code, f"+1212555010{index}", billing_day=day)
    reseller.world.tenant(reseller.account, "no-profile.example.com")
    reseller.world.run()
    reseller.world.receive(inbound("a", "+12125550100", SEPTEMBER, billed_seconds=90), at=IN_TIME)
    reseller.close_and_tell("2026-09")
    with reseller.invoicer():
        wait_until(lambda: sorted(reseller.states()) == ["not_billed", "scheduled", "scheduled"])
    rows = reseller.world.query(
        "select t.code, i.stripe_invoice, i.send_at, i.subtotal_minor, s.generated_at from invoices i "
        "join statements s on s.id = i.statement_id join tenants t on t.id = i.tenant_id where i.state = 'scheduled'"
    )
    found = {each["id"]: each for each in reseller.in_stripe()}
    assert {row.code: row.subtotal_minor for row in rows} == {"a.example.com": 2553, "b.example.com": 2500}
    for row in rows:
        invoice = found[row.stripe_invoice]
        on_day = send_instant(row.generated_at, days[row.code])
        assert (
            row.send_at == on_day or on_day == row.generated_at < row.send_at
        )  # a day that is past: at once
        assert sum(line["amount"] for line in reseller.sandbox.books(STRIPE).lines(row.stripe_invoice)) == (
            row.subtotal_minor
        )
        assert invoice["status"] in {"draft", "open"}
        assert invoice["auto_advance"] is True
    assert len(found) == 2


@pytest.mark.slow
def test_an_invoicer_killed_at_any_moment_leaves_one_complete_invoice_per_statement(
    reseller: Reseller,
) -> None:
    tenants = 20
    numbers = [f"+1212555{1000 + index}" for index in range(tenants)]
    for index, number in enumerate(numbers):
        reseller.tenant(f"t{index:02}.example.com", number)
    reseller.world.run()
    calls = [inbound(f"{index}", number, SEPTEMBER) for index, number in enumerate(numbers)]
    reseller.world.receive(*calls, at=IN_TIME)
    reseller.close_and_tell("2026-09")
    reseller.sandbox.set_faults({"action": "slow", "times": None, "seconds": 0.03})
    for requests in (3, 17, 38, 61):
        with reseller.invoicer_process() as process:
            wait_until(lambda wanted=requests: reseller.sandbox.requests >= wanted)  # type: ignore[misc]
            process.kill()
        for invoice in reseller.in_stripe():
            lines = reseller.sandbox.books(STRIPE).lines(invoice["id"])
            assert len(lines) == 2 or not invoice["auto_advance"], "a partial invoice would send itself"
    with reseller.invoicer_process():
        wait_until(lambda: reseller.states() == ["scheduled"] * tenants)
    invoices = reseller.in_stripe()
    assert len({each["customer"] for each in invoices}) == len(invoices) == tenants
    assert all(each["auto_advance"] for each in invoices)
    for invoice in invoices:
        lines = reseller.sandbox.books(STRIPE).lines(invoice["id"])
        assert sorted(line["amount"] for line in lines) == [35, 2500]
    assert len(reseller.sandbox.books(STRIPE).customers) == tenants


@pytest.fixture
def invoicing(database: Engine, sandbox: Sandbox) -> Invoicing:
    return Invoicing.made(database, sandbox, utc(2026, 2, 3, 1))


@pytest.mark.parametrize(
    ("generated_at", "month", "day", "sent_at"),
    [
        (utc(2026, 2, 3, 1), "2026-01", 31, utc(2026, 2, 28, 12)),
        (utc(2028, 2, 3, 1), "2028-01", 31, utc(2028, 2, 29, 12)),
        (utc(2026, 2, 3, 1), "2026-01", 1, utc(2026, 2, 3, 1)),
        (utc(2026, 6, 3, 1), "2026-05", 20, utc(2026, 6, 20, 12)),
    ],
)
def test_stripe_is_told_the_billing_day_as_short_months_have_it(
    invoicing: Invoicing, generated_at: datetime, month: str, day: int, sent_at: datetime
) -> None:
    invoicing.clock.move(generated_at)
    invoicing.bill(invoicing.tenant(), utc(2026, 1, 15), profile(billing_day=day))
    statement = invoicing.received(usage(seconds=60_000, cost="9", period=month), period=month)
    listed = invoicing.work_until_settled(statement)
    assert listed.send_at is not None
    at_once_minutes_max = 5 if sent_at == generated_at else 0
    assert sent_at <= listed.send_at <= sent_at + timedelta(minutes=at_once_minutes_max)
    [invoice] = invoicing.in_stripe()
    assert invoice["automatically_finalizes_at"] == int(listed.send_at.timestamp())
    invoicing.clock.move(listed.send_at - timedelta(seconds=1))
    assert invoicing.in_stripe()[0]["status"] == "draft"
    invoicing.clock.move(listed.send_at)
    assert invoicing.in_stripe()[0]["status"] == "open"


@pytest.mark.parametrize(("cost", "fee"), [("4.99", ["5.00"]), ("5.00", []), ("4.999999", ["5.00"])])
def test_next_to_no_usage_costs_the_account_five_dollars_once_its_invoice_is_sent_and_once_only(
    invoicing: Invoicing, cost: str, fee: list[str]
) -> None:
    invoicing.bill(invoicing.tenant(), utc(2026, 1, 15))
    statement = invoicing.received(usage(seconds=60_000, cost=cost, period="2026-01"), period="2026-01")
    invoicing.work_until_settled(statement)
    invoicing.refresh(statement)
    assert invoicing.fees() == []
    invoicing.clock.move(utc(2026, 2, 21))
    for _ in range(2):
        invoicing.refresh(statement)
        assert [amount for amount, _ in invoicing.fees()] == fee
    assert sum(
        line["amount"] for line in invoicing.sandbox.books(STRIPE).lines(invoicing.in_stripe()[0]["id"])
    ) == (int(Decimal("0.012") * 1000 * 100))
