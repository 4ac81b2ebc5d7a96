"""What is told of invoices is what stands in their rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from invoicing.refresh import UNTAXED
from invoicing.sandbox import Sandbox
from pipeline.clock import utc_now
from pipeline.counted_gateway import CountedGateway
from pipeline.metrics import STRIPE_REQUESTS
from pipeline.metrics.readings import invoicer_readings
from pipeline.settings import Settings
from schemas.periods import Period
from tests.invoicing.builders import World, statement, usage

BUSY = usage(seconds=60_000, cost="9.50")


@pytest.fixture
def month() -> str:
    """The latest month that is over: what is told is of the last three."""
    return str(Period.of(utc_now()).plus(-1))


def told(engine: Engine, metric: str) -> dict[tuple[str, ...], float]:
    readings = invoicer_readings(Settings(), engine)
    samples = [sample for reading in readings for sample in reading.read()]
    return {labels: value for found, labels, value in samples if found.name == metric}


@pytest.fixture
def world(database: Engine) -> World:
    with Sandbox().start() as sandbox:
        return World.made(database, sandbox, utc_now() - timedelta(hours=2))


def test_a_statement_is_unheard_of_until_its_event_is_taken_and_then_its_invoice_is_due(
    world: World, month: str
) -> None:
    world.tenant()
    body = statement(BUSY, period=month)
    statement_id = world.close(body)
    assert told(world.engine, "unheard_statements") == {(): 1}
    world.receive(statement_id)
    assert told(world.engine, "unheard_statements") == {(): 0}
    assert told(world.engine, "invoices")["received",] == 1
    assert told(world.engine, "invoice_overdue_seconds")[()] >= 7200


def test_the_invoices_of_a_paused_account_are_not_overdue_but_the_account_is_told(
    world: World, month: str
) -> None:
    world.tenant()
    world.received(BUSY, period=month)
    with world.engine.begin() as connection:
        connection.execute(text("update stripe_links set paused_at = now(), paused_reason = 'gone'"))
    assert told(world.engine, "paused_accounts") == {(): 1}
    assert told(world.engine, "invoice_overdue_seconds") == {(): 0}


def test_notices_are_told_in_words_of_ours_and_an_unknown_one_as_other(world: World, month: str) -> None:
    for tenant, notice in (("a.example.com", UNTAXED), ("b.example.com", "for Ada Example, +12125550100")):
        world.tenant(tenant)
        statement_id = world.received(BUSY, period=month, tenant=tenant)
        with world.engine.begin() as connection:
            connection.execute(
                text("update invoices set notice = :notice where statement_id = :id"),
                {"notice": notice, "id": statement_id},
            )
    notices = told(world.engine, "invoice_notices")
    assert notices == {("untaxed",): 1, ("changed",): 0, ("no_payment_method",): 0, ("other",): 1}


def test_phantom_fees_are_told_by_currency(world: World, month: str) -> None:
    world.tenant()
    statement_id = world.close(statement(BUSY, period=month))
    with world.engine.begin() as connection:
        connection.execute(
            text(
                "insert into phantom_fees (statement_id, account_id, tenant_id, period, stripe_invoice, amount, currency, "
                "evidence, made_at) select id, account_id, tenant_id, period, 'in_1', 5, 'USD', 'sent', now() "
                "from statements where id = :id"
            ),
            {"id": statement_id},
        )
    assert told(world.engine, "phantom_fees_total") == {("USD",): 1}
    assert told(world.engine, "phantom_fee_amount_total") == {("USD",): 5}


def test_each_request_to_stripe_is_counted_by_what_came_of_it(sandbox: Sandbox) -> None:
    def counted(outcome: str) -> float:
        return float(STRIPE_REQUESTS.labels(outcome=outcome)._value.get())

    gateway = CountedGateway("sk_test_sandbox", api_base=sandbox.url, network_retries_max=0)
    unreachable = CountedGateway("sk_test_sandbox", api_base="http://127.0.0.1:1", network_retries_max=0)
    before = {outcome: counted(outcome) for outcome in ("ok", "temporary", "permission", "refused")}
    gateway.invoice("acct_reseller", "in_none")
    unreachable.invoice("acct_reseller", "in_none")
    sandbox.books("acct_reseller").linked = False
    gateway.invoice("acct_reseller", "in_none")
    grown = {outcome: counted(outcome) - value for outcome, value in before.items()}
    assert grown["temporary"] == grown["permission"] == 1
    assert sum(grown.values()) == 3


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox().start() as running:
        yield running
