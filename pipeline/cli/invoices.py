"""Invoices and fees: where each stands and why, and what people can do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from sqlalchemy import Connection

from attribution import import_store
from invoicing import listing_store, news_store, retry_store, setup_store, store
from invoicing.invoicer import Invoicer
from invoicing.listing_store import FeeListing, FeeTotal, InvoiceListing
from invoicing.news import RefusedNews
from invoicing.news_store import Receipt
from invoicing.refresh import refresh_invoice
from invoicing.states import State
from invoicing.tax_report import read_taxes, tax_total
from pipeline.cli import asking, billing, session
from pipeline.cli.billing import account_id, gateway
from pipeline.cli.directory import AccountCode
from pipeline.cli.invoice_run import invoice_run
from pipeline.cli.months import Month, OfAccount, OfPeriod, OfTenant
from pipeline.cli.output import AsJson, Refused, period_argument, print_json, say, show, show_one
from pipeline.clock import utc_now
from rollup.months_store import database_now
from schemas.periods import Period

_unread_rows_max: Final = 10_000
_NOT_TAKEN: Final = {Receipt.NO_SUCH_STATEMENT, Receipt.OTHER_BYTES}
_shown_columns: Final = (
    *("invoice_id", "kind", "account", "tenant", "period", "state", "due_step", "due_at", "reason", "notice"),
    *("currency", "subtotal_minor", "stripe_invoice", "send_at", "attempts", "paused_reason", "remedy"),
)  # what people read; --json has all
InvoiceId = Annotated[
    UUID,
    typer.Argument(
        metavar="INVOICE", help="The invoice's id or its statement's, as `invoice list` shows them."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    billing.add_to(app)
    invoice = typer.Typer(
        no_args_is_help=True, help="Invoices: one per statement, sent by Stripe on the billing day."
    )
    commands: dict[str, Callable[..., None]] = {
        "list": invoice_list,
        "explain": invoice_explain,
        "preview": asking.invoice_preview,
        "one-time": asking.invoice_one_time,
        "retry": invoice_retry,
        "refresh": invoice_refresh,
        "run": invoice_run,
        "taxes": invoice_taxes,
        "receive": invoice_receive,
        "refused-events": refused_events,
        "resolve-event": resolve_event,
    }
    for name, command in commands.items():
        invoice.command(name)(command)
    app.add_typer(invoice, name="invoice")
    app.command("fees")(fees)


def invoice_list(
    *,
    account: OfAccount = None,
    tenant: OfTenant = None,
    period: OfPeriod = None,
    state: Annotated[str | None, typer.Option(help="Only this state, such as scheduled.")] = None,
    as_json: AsJson = False,
) -> None:
    """List invoices with their state, due step, Stripe id and reason."""
    month = period_argument(period).first_day if period else None
    with session.transaction("invoice list") as connection:
        rows = listing_store.list_invoices(
            connection, account=account, tenant=tenant, period=month, state=state
        )
    records = [_with_month(row) for row in rows]
    if not as_json:
        records = [{name: record[name] for name in _shown_columns} for record in records]
    show(records, as_json=as_json, title="invoices", empty="none")


def invoice_explain(statement: InvoiceId, *, as_json: AsJson = False) -> None:
    """Show an invoice's lines, each with the statement's lines it comes from, and what was asked of Stripe when."""
    with session.transaction("invoice explain") as connection:
        found = listing_store.explain_invoice(connection, statement)
    if found is None:
        raise Refused(f"{statement} is no invoice, nor a statement that has one")
    invoice = _with_month(found.invoice)
    if as_json:
        print_json({"invoice": invoice, "lines": found.lines, "steps": found.steps})
        return
    show_one(invoice, as_json=False, title="invoice")
    show(found.lines, as_json=False, title="lines", empty="none")
    show(found.steps, as_json=False, title="steps", empty="none")


def invoice_retry(
    invoice: Annotated[
        UUID | None,
        typer.Argument(
            metavar="[INVOICE]", help="The invoice's id or its statement's, as `invoice list` shows them."
        ),
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Instead: all of this account's that stand still.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only those whose reason begins so.")] = None,
    *,
    present_profile: Annotated[
        bool,
        typer.Option("--present-profile", help="Decide a blocked one by the profile in force now, not then."),
    ] = False,
) -> None:
    """Try invoices again that wait, failed, are blocked or held, or were deleted in Stripe (those one by one)."""
    if (invoice is None) == (account is None):
        raise typer.BadParameter("name an invoice, or an --account")
    with session.transaction("invoice retry") as connection:
        now = database_now(connection)
        if account is not None:
            owner = account_id(connection, account)
            wanted = retry_store.stopped_invoices(connection, owner, reason)
            states = [_retry(connection, each, now, present_profile=present_profile) for each in wanted]
            say(f"{sum(state is not None for state in states)} invoices go on")
            return
        assert invoice is not None  # one of the two is given
        state = _retry(connection, invoice, now, present_profile=present_profile)
    if state is None:
        raise Refused(f"{invoice} is no invoice that can be tried again so")
    say(f"the invoice goes on from {state}")


def invoice_refresh(account: OfAccount = None) -> None:
    """Read in Stripe what became of scheduled invoices whose day has passed; the invoicer does it daily by itself."""
    stripe = gateway()
    with session.database("invoice refresh") as engine:
        invoicer = Invoicer(engine, stripe, utc_now)
        with engine.begin() as connection:
            known = import_store.all_accounts(connection)
            owners = [account_id(connection, account)] if account else [each.id for each in known.values()]
            unread = [
                invoice_id
                for owner in owners
                for invoice_id in store.unread_invoices(
                    connection, owner, utc_now(), due_only=False, rows_max=_unread_rows_max
                )
            ]
        read = Counter(refresh_invoice(invoicer, invoice_id) for invoice_id in unread)
    found = "".join(f", {count} {state or 'not answered yet'}" for state, count in read.items())
    say(f"{len(unread)} invoices were read{found}")


def invoice_taxes(account: AccountCode, month: Month, *, as_json: AsJson = False) -> None:
    """Report the taxes on a month's invoices, one-time ones included: read from Stripe now, kept nowhere."""
    stripe, period = gateway(), period_argument(month).first_day
    with session.transaction("invoice taxes") as connection:
        account_id(connection, account)
        invoices = listing_store.list_invoices(connection, account=account, period=period)
    report = read_taxes(stripe, invoices)
    if not isinstance(report, list):
        raise Refused(f"Stripe gave no answer: {report.reason}")
    show(report, as_json=as_json, title=f"taxes of {account}, {month}", empty="none")
    total = tax_total(report)
    if total is not None and not as_json:
        show_one(total, as_json=False, title="sent and standing")


def invoice_receive(month: Month, account: OfAccount = None) -> None:
    """Take up a closed month's statements whose events were refused or lost; safe to repeat."""
    with session.transaction("invoice receive") as connection:
        new = news_store.receive_month(connection, period_argument(month), account, database_now(connection))
    say(f"{new} statements are new to the invoicer")


def resolve_event(
    topic: Annotated[str, typer.Argument(help="As `invoice refused-events` shows it.")],
    partition: Annotated[int, typer.Argument(help="Its partition.")],
    offset: Annotated[int, typer.Argument(help="Its offset.")],
    *,
    dismiss: Annotated[
        bool, typer.Option("--dismiss", help="Resolve it even if it cannot be taken.")
    ] = False,
) -> None:
    """Take a refused event again, by its data, or dismiss it."""
    with session.transaction("invoice resolve-event") as connection:
        found = news_store.resolve_event(
            connection, topic, partition, offset, database_now(connection), dismiss=dismiss
        )
    if found is None:
        raise Refused("no such refused event waits")
    told = f"{found.reason}: {found.detail}" if isinstance(found, RefusedNews) else found.value
    if not dismiss and (isinstance(found, RefusedNews) or found in _NOT_TAKEN):
        raise Refused(f"it still cannot be taken ({told}); `invoice receive` takes the month's statements up")
    say("dismissed" if dismiss else f"taken: the statement is {told}")


def refused_events(*, as_json: AsJson = False) -> None:
    """List statement-closed events that the invoicing consumer could not take."""
    with session.transaction("invoice refused-events") as connection:
        show(
            listing_store.list_refused_events(connection),
            as_json=as_json,
            title="refused events",
            empty="none",
        )


def fees(*, account: OfAccount = None, period: OfPeriod = None, as_json: AsJson = False) -> None:
    """List phantom fees by month: on the account, for invoices sent on next to no usage. Nothing takes one back."""
    month = period_argument(period).first_day if period else None
    with session.transaction("fees") as connection:
        rows = listing_store.list_fees(connection, account=account, period=month)
        totals = listing_store.fee_totals(connection, account=account, period=month)
    show([_with_month(row) for row in rows], as_json=as_json, title="phantom fees", empty="none")
    if totals and not as_json:
        show([_with_month(row) for row in totals], as_json=False, title="by month and account")


def _with_month(row: InvoiceListing | FeeListing | FeeTotal) -> dict[str, Any]:
    """The row with its month written as everywhere else: 2026-10."""
    listed = {field.name: getattr(row, field.name) for field in fields(row)}
    return listed | {"period": str(Period.of(row.period))}


def _retry(connection: Connection, invoice: UUID, now: datetime, *, present_profile: bool) -> State | None:
    chosen = _present_profile(connection, invoice) if present_profile else None
    return retry_store.retry_invoice(connection, invoice, now, profile_id=chosen)


def _present_profile(connection: Connection, invoice: UUID) -> int:
    tenant_id = listing_store.tenant_of(connection, invoice)
    versions = [] if tenant_id is None else setup_store.profile_versions(connection, tenant_id)
    present = [each.id for each in versions if each.ended_at is None]
    if not present:
        raise Refused(f"the tenant of {invoice} has no billing profile now")
    return present[0]
