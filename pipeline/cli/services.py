"""Setting up and running: migrate, bootstrap, worker, invoicer, sandbox."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, NoReturn

import structlog
import typer
from sqlalchemy import Engine, text

from attribution import installation_store
from attribution.details import RefusedChangeError
from invoicing.sandbox.server import Sandbox
from pipeline.cli import session
from pipeline.cli.output import EXIT_REFUSED, AsJson, Refused, period_argument, say, show_one
from pipeline.database import MigrationBlockedError
from pipeline.database import migrate as migrate_database
from pipeline.health import PortTakenError
from pipeline.invoicer import run_invoicer, stripe_gateway
from pipeline.jobs import running_jobs
from pipeline.logs import configure_logs
from pipeline.settings import Settings
from pipeline.signals import stop_on_signals
from pipeline.watching import watched_invoicer, watched_worker
from pipeline.worker import run_worker
from rollup import months_store
from schemas.periods import Period

_log = structlog.get_logger(__name__)
_bootstrap_poll_seconds: Final = 2.0
_months_back_max: Final = 14  # 400 days: nothing older can be posted (L6)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    app.command()(migrate)
    bootstrap = typer.Typer(
        no_args_is_help=True, help="The time before the first worker runs: history may be imported."
    )
    bootstrap.command("status")(bootstrap_status)
    bootstrap.command("finish")(bootstrap_finish)
    app.add_typer(bootstrap, name="bootstrap")
    app.command()(worker)
    app.command()(invoicer)
    app.command()(sandbox)


def migrate() -> None:
    """Bring the database's schema up to this version; safe to repeat and beside running workers."""
    with session.database("migrate") as engine:
        try:
            migrate_database(engine)
        except MigrationBlockedError as error:
            raise Refused(str(error)) from error
    say("the schema is up to date")


def bootstrap_status(*, as_json: AsJson = False) -> None:
    """Show whether the installation still takes history with its own times."""
    with session.transaction("bootstrap status") as connection:
        row = connection.execute(text("select state, bootstrap_finished_at from installation")).one()
    show_one(row, as_json=as_json, title="installation")


def bootstrap_finish(
    first_period: Annotated[
        str | None,
        typer.Option(
            help="The first month to bill, such as 2026-10; records older than it are quarantined. Default: this month."
        ),
    ] = None,
) -> None:
    """End the bootstrap, one-way: from here on every change is made at the present instant, and workers consume."""
    months_ahead = session.settings().months_ahead
    with session.transaction("bootstrap finish") as connection:
        now = months_store.database_now(connection)
        month = period_argument(first_period) if first_period else Period.of(now)
        if not Period.of(now).plus(-_months_back_max) <= month <= Period.of(now):
            raise Refused(
                f"the first month must lie within the last {_months_back_max} months, and not ahead"
            )
        while month <= Period.of(now).plus(months_ahead):
            months_store.make_month(connection, month)
            month = month.next()
        try:
            installation_store.finish_bootstrap(connection, now)
        except RefusedChangeError as error:
            raise Refused(str(error)) from error
    say("bootstrap finished: history is closed, workers may consume")


def worker() -> None:
    """Consume call records and SIP events, and do the jobs around them (resolver, month close, relay) until SIGTERM."""
    with (
        _service() as settings,
        session.database("worker") as engine,
        watched_worker(settings, engine) as view,
    ):
        _wait_for_bootstrap(engine)
        with running_jobs(settings, engine):
            run_worker(settings, engine, view)


def invoicer() -> None:
    """Turn statement-closed events into Stripe invoices until SIGTERM."""
    stop = threading.Event()
    with _service() as settings:
        try:
            stripe_gateway(settings)
        except ValueError as error:
            raise Refused(str(error), exit_code=2) from error
        with (
            session.database("invoicer") as engine,
            stop_on_signals(stop),
            watched_invoicer(settings, engine) as pulse,
        ):
            run_invoicer(settings, engine, stop, pulse=pulse)


def sandbox(
    port: Annotated[int, typer.Option(help="TCP port on 127.0.0.1; 0 takes a free one.")] = 12111,
) -> None:
    """Run the Stripe sandbox: a stateful stand-in for Stripe on loopback, for trying things without an account."""
    stop = threading.Event()
    try:
        server = Sandbox(port)
    except OSError as error:
        raise Refused(f"port {port} cannot be had: {error.strerror}") from error
    with stop_on_signals(stop), server.start() as running:
        say(f"Stripe sandbox on {running.url}")
        stop.wait()


@contextmanager
def _service() -> Iterator[Settings]:
    """What a service says goes into its log, from its settings on, the reason why it does not run included."""
    configure_logs("info")
    try:
        settings = session.settings()
        configure_logs(settings.log_level)
        yield settings
    except PortTakenError as error:
        _refuse(f"TENANT_BILLING_METRICS_PORT: {error}", EXIT_REFUSED)
    except Refused as refused:
        _refuse(str(refused), refused.exit_code)


def _refuse(reason: str, exit_code: int) -> NoReturn:
    _log.error("refused", reason=reason)
    raise typer.Exit(exit_code)


def _wait_for_bootstrap(engine: Engine) -> None:
    """Workers do not consume while history may still be written (A8)."""
    told = False
    while True:
        with engine.connect() as connection:
            if connection.execute(text("select state = 'running' from installation")).scalar_one():
                return
        if not told:
            _log.info("waiting_for_bootstrap", until="`tenant-billing bootstrap finish` has been run")
            told = True
        threading.Event().wait(_bootstrap_poll_seconds)
