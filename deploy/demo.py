"""`python -m deploy.demo`: a month of a carrier's calls, from Kafka to Stripe invoices, checked to the last count.

Everything is embedded and started here. The traffic's generator knows what each message must become; the exit code
is 0 only if every count, sum, statement and invoice is exactly that.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import Engine

from attribution.changes_store import find_account
from deploy.sample import outcome_store, report
from deploy.sample.carrier import sample_carrier
from deploy.sample.comparison import Outcome, differences
from deploy.sample.expected import Group
from deploy.sample.gathering import gather
from deploy.sample.sending import NotAcknowledgedError, Sender
from deploy.sample.setup import finish, import_history, set_up_billing
from deploy.sample.stage import Stage, WaitedTooLongError
from deploy.stack.broker import BrokerUnavailableError
from deploy.stack.postgres import PostgresUnavailableError
from deploy.stack.running import SERVICES, RunningStack, ServiceEndedError
from deploy.stack.sandbox_door import move_clock
from deploy.traffic import generate
from invoicing import listing_store, store
from invoicing.invoicer import Invoicer
from invoicing.refresh import refresh_invoice
from invoicing.states import State
from pipeline.boundaries import KafkaBoundaries
from pipeline.clock import utc_now
from pipeline.closer import Waiting, close_month
from pipeline.database import connect, migrate
from pipeline.invoicer import stripe_gateway
from pipeline.logs import configure_logs
from pipeline.settings import Settings
from rollup import conservation_store
from schemas.periods import Period

_LOGS: Final = Path(".run/demo")
_SETTINGS: Final = {
    # all records of a past month arrive today: the month is closed by hand, never by itself before they have
    "TENANT_BILLING_GRACE_HOURS": str(24 * 365 * 10),
    "TENANT_BILLING_SIP_WAIT_SECONDS": "3",
    "TENANT_BILLING_RESOLVER_INTERVAL_SECONDS": "0.5",
    "TENANT_BILLING_RELAY_INTERVAL_SECONDS": "0.3",
    "TENANT_BILLING_INVOICER_INTERVAL_SECONDS": "0.3",
    "TENANT_BILLING_STRIPE_REQUESTS_PER_SECOND_MAX": "500",  # the sandbox is ours
}
_FAILURES: Final = (
    *(WaitedTooLongError, ServiceEndedError, NotAcknowledgedError),
    *(BrokerUnavailableError, PostgresUnavailableError),
)
_UNDECIDED: Final = frozenset({State.RECEIVED, State.DRAFTING, State.DRAFTED})
_refreshed_invoices_max: Final = 1000


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a summary for programs")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another month of calls")
    parser.add_argument("--calls", type=int, default=20_000, help="about how many call records")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    configure_logs("error")
    with RunningStack(_LOGS.absolute(), _SETTINGS) as stack:
        stage = Stage(stack)
        try:
            return _run(stage, arguments)
        except _FAILURES as error:
            stage.console.print("[bold red]The demo failed.[/]")
            stage.console.print(str(error), markup=False, soft_wrap=True)
        except KeyboardInterrupt:
            stage.console.print("stopped")
    return 1


def _run(stage: Stage, arguments: argparse.Namespace) -> int:
    demo = Demo(stage, arguments.calls, arguments.seed)
    outcome = demo.run()
    wrong = differences(demo.carrier, demo.traffic.expected, outcome)
    demo.show(outcome, wrong)
    if arguments.json is not None:
        arguments.json.write_bytes(orjson.dumps(demo.summary(outcome, wrong), option=orjson.OPT_INDENT_2))
    if arguments.keep:
        with suppress(KeyboardInterrupt):
            _keep(stage)
    return 1 if wrong else 0


class Demo:
    """One run, phase by phase."""

    def __init__(self, stage: Stage, calls: int, seed: int) -> None:
        self.stage = stage
        self.stack = stage.stack
        self.seed = seed
        self.period = last_closable(utc_now())
        self.carrier = sample_carrier(self.period)
        self.traffic = generate(self.carrier, calls, seed)

    def run(self) -> Outcome:
        """All phases; returns what came out."""
        self.start_parts()
        self.settings = self.stack.read_settings()
        self.engine: Engine = connect(self.stack.database_url, application_name="demo")
        self.sender = Sender(self.stack.kafka_bootstrap_servers, self.engine)
        self.set_up()
        self.start_services()
        self.publish()
        self.close()
        statements = self._statements()
        self.publish_late()
        self.await_invoices()
        self.send_invoices()
        assert self.stack.stripe_api_base is not None
        return gather(
            self.engine, self.period, self.stack.stripe_api_base, statements, self.sender.acknowledged
        )

    def start_parts(self) -> None:
        """What the product stands on."""
        self.stage.phase(
            "Starting a Kafka broker, a Postgres server and a stand-in for Stripe, all embedded, on this machine."
        )
        self.stack.start_parts()

    def set_up(self) -> None:
        """The carrier's customers, with their history."""
        self.stage.phase(
            "Setting up the carrier's customers: accounts, their tenants, numbers and addresses come from CSV "
            "files with their history; then tariffs, Stripe accounts and billing profiles."
        )
        migrate(self.engine)
        import_history(self.engine, self.carrier, lambda kind, made: self.stage.note(f"{made} {kind}"))
        set_up_billing(self.engine, self.carrier)
        finish(self.engine, self.period, self.settings.months_ahead)

    def start_services(self) -> None:
        """The product's own processes."""
        self.stage.phase(
            "Starting the worker, which reads call records and SIP events, and the invoicer, which speaks to Stripe."
        )
        for service in SERVICES:
            self.stack.start_service(service)
        self.stage.note(f"their logs are in {self.stack.logs}")

    def publish(self) -> None:
        """The month."""
        self.stage.phase(
            f"Publishing {self.period}: {_messages(self.traffic.month):,} call records and SIP events, with resends, "
            "spoofed headers, unknown numbers and broken messages among them."
        )
        self._send(self.traffic.month)
        self.stage.phase(
            "Reading to the end. A call from a shared address without a tenant's name waits for its SIP INVITE; "
            "some come before the record, some after it, some never."
        )
        self._await_reading()

    def close(self) -> None:
        """The month's close.

        Raises:
            WaitedTooLongError: something still speaks against it.
        """
        self.stage.phase(
            f"Closing {self.period}: one statement for every tenant, and one per account for what has no tenant."
        )
        grace = {"grace_hours": Settings.model_fields["grace_hours"].default}  # the worker's is endless here
        settings = self.settings.model_copy(update=grace)
        source = KafkaBoundaries(settings.kafka_bootstrap_servers, require_log_append_time=False)
        closed = close_month(self.engine, settings, source, self.period)
        if isinstance(closed, Waiting):
            raise WaitedTooLongError(
                f"{self.period} waits for: {'; '.join(each.text for each in closed.blockers)}"
            )
        self.stage.note(f"{closed.month.statement_count} statements")

    def publish_late(self) -> None:
        """What comes too late."""
        self.stage.phase(
            f"Publishing {_messages(self.traffic.late)} messages of {self.period} that come too late: the closed "
            f"statements stay as they are, the calls go to {self.period.next()} under their own month."
        )
        self._send(self.traffic.late)
        self._await_reading()

    def await_invoices(self) -> None:
        """Drafts in Stripe."""
        self.stage.phase(
            "Waiting for the invoices: each is drafted in the account's Stripe, compared with our own sum, and only "
            "then scheduled for the tenant's billing day."
        )
        tenants = len(self.carrier.tenants)
        with self.stage.progress("invoices decided", tenants) as done:
            self.stage.until("all invoices decided", lambda: done(self._decided_invoices()) == tenants)

    def send_invoices(self) -> None:
        """The billing days, all at once."""
        then = utc_now() + timedelta(days=40)
        self.stage.phase(
            f"Moving Stripe's clock to {then:%Y-%m-%d}, past every billing day: Stripe sends the invoices, we read "
            "that it did. An invoice sent on usage under 5.00 costs its account a phantom fee."
        )
        assert self.stack.stripe_api_base is not None
        move_clock(self.stack.stripe_api_base, then)
        invoicer = Invoicer(self.engine, stripe_gateway(self.settings), lambda: then)
        for account in self.carrier.accounts:
            with self.engine.begin() as connection:
                account_id = find_account(connection, account.code).id
                unread = store.unread_invoices(
                    connection, account_id, then, due_only=False, rows_max=_refreshed_invoices_max
                )
            for invoice_id in unread:
                refresh_invoice(invoicer, invoice_id)

    def show(self, outcome: Outcome, wrong: list[str]) -> None:
        """Tables for people, and every difference."""
        console = self.stage.console
        console.print()
        report.show_statements(console, outcome.statements)
        report.show_invoices(console, outcome)
        with self.engine.begin() as connection:
            usage = outcome_store.unattributed(connection)
            report.show_unattributed(console, usage, outcome_store.ignored_headers(connection))
            report.show_quarantine(console, outcome_store.quarantine_examples(connection))
        console.print(f"[bold]{report.conservation_line(outcome)}[/]")
        for each in wrong:
            console.print(f"[red]different:[/] {each}")
        if wrong:
            console.print(f"[bold red]{len(wrong)} differences[/]; logs: {self.stack.logs}")
        else:
            console.print(
                f"[bold green]Every count is what the generator knows.[/] ({self.stage.seconds:.0f} s)"
            )

    def summary(self, outcome: Outcome, wrong: list[str]) -> dict[str, Any]:
        """The summary for programs."""
        return {
            "period": str(self.period),
            "seed": self.seed,
            "ok": not wrong,
            "differences": wrong,
            "seconds": round(self.stage.seconds, 1),
            **report.summary(outcome),
        }

    def _send(self, groups: Sequence[Group]) -> None:
        sent = 0
        with self.stage.progress("sent", _messages(groups)) as done:

            def more(messages: int) -> None:
                nonlocal sent
                sent += messages
                done(sent)

            self.sender.send(groups, self.stack.check, more)

    def _await_reading(self) -> None:
        total = self.sender.acknowledged
        with self.stage.progress("read", total) as done:
            self.stage.until("everything read", lambda: done(total - self.sender.unread()) == total)
        with self.stage.console.status("waiting for SIP events"):
            self.stage.until("all held records released", lambda: self._held() == 0)

    def _held(self) -> int:
        with self.engine.connect() as connection:
            return conservation_store.conservation(connection).waiting

    def _decided_invoices(self) -> int:
        with self.engine.connect() as connection:
            states = listing_store.count_by_state(connection)
        return sum(invoices for state, invoices in states.items() if state not in _UNDECIDED)

    def _statements(self) -> tuple[outcome_store.ClosedStatement, ...]:
        with self.engine.connect() as connection:
            return tuple(outcome_store.statements(connection, self.period))


def last_closable(now: datetime) -> Period:
    """The latest month whose cutoff has passed for certain."""
    last = Period.of(now).plus(-1)
    return last if now > last.ends_at + timedelta(hours=49) else last.plus(-1)


def _messages(groups: Sequence[Group]) -> int:
    return sum(len(group.messages) for group in groups)


def _keep(stage: Stage) -> None:
    stage.console.print("\nStill running, until Ctrl-C. In another shell:")
    for name, value in stage.stack.environment.items():
        stage.console.print(f"export {name}={value}", soft_wrap=True)
    stage.console.print(".venv/bin/tenant-billing statement list")
    while True:
        stage.stack.check()
        threading.Event().wait(1.0)


if __name__ == "__main__":
    sys.exit(main())
