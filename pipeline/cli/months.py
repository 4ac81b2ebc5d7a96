"""Months and what they close into: periods, statements, usage so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, NamedTuple

import typer
from sqlalchemy import Connection, Engine

from pipeline import closer
from pipeline.boundaries import KafkaBoundaries
from pipeline.cli import session
from pipeline.cli.billing import account_id
from pipeline.cli.output import (
    EXIT_WAITING,
    AsJson,
    Refused,
    period_argument,
    print_json,
    say,
    show,
    show_one,
)
from pipeline.explain_context import sip_reading
from rollup import audit_store, months_store, reading_store, unattributed_store
from rollup.close_store import AggregatesDifferError, NotSealedError
from rollup.months_store import Blocker, PeriodRow
from rollup.statement import UnknownRendererError
from schemas.statements import Statement

Month = Annotated[str, typer.Argument(help="A month, such as 2026-10.")]
OfPeriod = Annotated[str | None, typer.Option("--period", help="Only this month, such as 2026-10.")]
OfAccount = Annotated[str | None, typer.Option("--account", help="Only this account, by its code.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant, by its Account ID.")]


class PeriodStatus(NamedTuple):
    """A month and what it waits for."""

    period: str
    state: str
    cutoff_at: object
    sealed_at: object
    closed_at: object
    waits_for: list[str]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    period = typer.Typer(no_args_is_help=True, help="UTC months: open, sealed, closed.")
    period.command("status")(period_status)
    period.command("close")(period_close)
    period.command("rebuild")(period_rebuild)
    app.add_typer(period, name="period")
    statement = typer.Typer(
        no_args_is_help=True, help="Statements: one tenant (or unassigned usage), one closed month."
    )
    statement.command("list")(statement_list)
    statement.command("show")(statement_show)
    app.add_typer(statement, name="statement")
    app.command()(usage)
    app.command()(unattributed)
    app.command()(reconcile)


def period_status(*, as_json: AsJson = False) -> None:
    """Show each month's state and what it waits for."""
    waits = closer.waits_of(session.settings())
    with session.transaction("period status") as connection:
        now = months_store.database_now(connection)
        rows = [
            PeriodStatus(
                str(row.period),
                row.state,
                row.cutoff_at,
                row.sealed_at,
                row.closed_at,
                _waits_for(row, months_store.what_blocks(connection, row.period, now, waits)),
            )
            for row in months_store.period_rows(connection)
        ]
    show(rows, as_json=as_json, title="months")


def _waits_for(row: PeriodRow, blockers: Sequence[Blocker]) -> list[str]:
    if row.state == "sealed":
        return [f"its statements, which are made next: `period close {row.period}` says what stops them"]
    return [each.text for each in blockers]


def period_close(month: Month, *, as_json: AsJson = False) -> None:
    """Seal and close a month once all it waits for is there; exit code 3 says what it still waits for."""
    period, settings = period_argument(month), session.settings()
    source = KafkaBoundaries(
        settings.kafka_bootstrap_servers,
        settings.kafka_security,
        require_log_append_time=settings.require_log_append_time,
    )
    with session.database("period close") as engine:
        try:
            outcome = closer.close_month(engine, settings, source, period)
        except AggregatesDifferError as error:
            raise Refused(str(error)) from error
    if isinstance(outcome, closer.Waiting):
        waits_for = "\n".join(f"  - {each.text}" for each in outcome.blockers)
        raise Refused(f"{period} cannot close yet:\n{waits_for}", EXIT_WAITING)
    for each in outcome.left_open:
        say(f"closed without waiting longer: {each.text}")
    if as_json:
        print_json(outcome.month)
    else:
        show(outcome.month.accounts, as_json=False, title=f"{period} is closed")


def period_rebuild(month: Month, *, as_json: AsJson = False) -> None:
    """Compute a closed month's statements anew from the ledger and compare their hashes."""
    with session.transaction("period rebuild") as connection:
        try:
            rebuilt = audit_store.rebuild(connection, period_argument(month))
        except (NotSealedError, UnknownRendererError) as error:
            raise Refused(str(error)) from error
    show(rebuilt, as_json=as_json, title=f"{month} rebuilt")
    if not all(each.same for each in rebuilt):
        raise Refused("a statement is not what the ledger gives")


def statement_list(
    *, period: OfPeriod = None, account: OfAccount = None, tenant: OfTenant = None, as_json: AsJson = False
) -> None:
    """List statements."""
    with session.transaction("statement list") as connection:
        _refuse_unknown(connection, account)
        rows = reading_store.statements(
            connection, period_argument(period) if period else None, account, tenant
        )
    show(rows, as_json=as_json, title="statements")


def statement_show(
    account: Annotated[str, typer.Argument(help="The account's code.")],
    month: Month,
    tenant: Annotated[
        str | None, typer.Option(help="The Account ID; left out: the account's unassigned usage.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show one statement; with --json the very bytes that were hashed."""
    with session.transaction("statement show") as connection:
        found = reading_store.statement_document(connection, period_argument(month), account, tenant)
        if found is None:
            account_id(connection, account)  # refused, where it is this that there is none of
    if found is None:
        raise Refused(f"there is no statement of {tenant or 'unassigned usage'} in {account!r} for {month}")
    if as_json:
        typer.echo(found.body)
        return
    statement = Statement.model_validate_json(found.body)
    show(
        statement.lines,
        as_json=False,
        title=f"{tenant or 'unassigned usage'}, {month} (UTC)",
        empty="no usage",
    )
    show(statement.numbers, as_json=False, title="numbers held at the month's end", empty="none")
    totals = statement.totals.model_dump(mode="json") | {
        "peak_concurrent_channels": statement.peak_concurrent_channels,
        "currency": statement.currency,
        "sha256": found.entry.sha256,
    }
    show_one(totals, as_json=False, title="totals")


def usage(
    *, period: OfPeriod = None, account: OfAccount = None, tenant: OfTenant = None, as_json: AsJson = False
) -> None:
    """Show monthly usage so far, for operators; a month that is open is no statement."""
    with session.transaction("usage") as connection:
        _refuse_unknown(connection, account)
        rows = reading_store.usage_so_far(
            connection, period_argument(period) if period else None, account, tenant
        )
    show(rows, as_json=as_json, title="usage so far")


def unattributed(*, period: OfPeriod = None, account: OfAccount = None, as_json: AsJson = False) -> None:
    """Show why usage has no tenant and which X-Tenant headers were ignored, by reason, account and asset."""
    with session.transaction("unattributed") as connection:
        _refuse_unknown(connection, account)
        month = period_argument(period) if period else None
        rows = unattributed_store.unattributed(connection, month, account, sip_reading(session.settings()))
    show(rows, as_json=as_json, title="without a tenant, or with an ignored header", empty="none")


def reconcile(*, period: OfPeriod = None, as_json: AsJson = False) -> None:
    """Compare ledger, sums, statements, account totals and the hash chain; exit code 1 where anything differs.

    Takes about twice the time of one scan of the ledger; --period looks at one month's ledger rows only.
    """
    only = period_argument(period) if period else None
    with session.database("reconcile") as engine, _one_moment(engine) as connection:
        found = audit_store.reconcile(connection, only)
    show(found, as_json=as_json, title="differences", empty="none")
    if found:
        raise Refused(f"{len(found)} differences")


def _refuse_unknown(connection: Connection, account: str | None) -> None:
    """A list of nothing would look like no usage."""
    if account is not None:
        account_id(connection, account)


@contextmanager
def _one_moment(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one moment, however much is posted meanwhile."""
    with engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
        yield connection
