"""Billing tenants: Stripe links, billing profiles, invoices, fees."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer
import yaml
from pydantic import ValidationError
from sqlalchemy import Connection

from attribution import changes_store, import_store
from attribution.details import RefusedChangeError
from invoicing import listing_store, retry_store, setup_store, store
from invoicing.invoicer import Invoicer
from invoicing.listing_store import FeeListing, InvoiceListing
from invoicing.plan import Blocked, NotBilled, NothingToBill, ToBill, plan_invoice
from invoicing.profile import BillingProfile
from invoicing.refresh import refresh_invoice
from invoicing.schedule import ProfileVersion
from invoicing.setup_store import SetupRefusedError
from pipeline.cli import session
from pipeline.cli.directory import AccountCode, AccountId
from pipeline.cli.months import Month, OfAccount, OfPeriod, OfTenant
from pipeline.cli.output import AsJson, Refused, period_argument, print_json, say, show, show_one
from pipeline.clock import utc_now
from pipeline.invoicer import stripe_gateway
from rollup import reading_store
from rollup.months_store import database_now
from schemas.periods import Period
from schemas.statements import Statement

_unread_rows_max: Final = 10_000
StatementId = Annotated[
    UUID, typer.Argument(metavar="STATEMENT", help="The statement's id, as `invoice list` shows it.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    stripe = typer.Typer(
        no_args_is_help=True, help="An account's own Stripe account, linked and unlinked at will."
    )
    stripe.command("link")(stripe_link)
    stripe.command("unlink")(stripe_unlink)
    stripe.command("resume")(stripe_resume)
    app.add_typer(stripe, name="stripe")
    profile = typer.Typer(no_args_is_help=True, help="Billing profiles: what to bill a tenant, and when.")
    profile.command("apply")(profile_apply)
    profile.command("show")(profile_show)
    profile.command("end")(profile_end)
    app.add_typer(profile, name="profile")
    invoice = typer.Typer(
        no_args_is_help=True, help="Invoices: one per statement, sent by Stripe on the billing day."
    )
    invoice.command("list")(invoice_list)
    invoice.command("explain")(invoice_explain)
    invoice.command("preview")(invoice_preview)
    invoice.command("retry")(invoice_retry)
    invoice.command("refresh")(invoice_refresh)
    invoice.command("refused-events")(refused_events)
    app.add_typer(invoice, name="invoice")
    app.command("fees")(fees)


def stripe_link(
    account: AccountCode,
    stripe_account: Annotated[str, typer.Argument(help="The connected account, acct_….")],
) -> None:
    """Link an account's own Stripe account; from then on its tenants can be invoiced."""
    with session.transaction("stripe link") as connection:
        try:
            setup_store.link_stripe(
                connection, _account_id(connection, account), stripe_account, database_now(connection)
            )
        except SetupRefusedError as error:
            raise Refused(str(error)) from error
    say(f"{account} sends its invoices through {stripe_account}")


def stripe_unlink(account: AccountCode) -> None:
    """Unlink it: no new invoices; scheduled ones stay Stripe's; statements go on."""
    with session.transaction("stripe unlink") as connection:
        if not setup_store.unlink_stripe(
            connection, _account_id(connection, account), database_now(connection)
        ):
            raise Refused(f"account {account!r} has no Stripe account linked")
    say(f"{account} sends no more invoices")


def stripe_resume(account: AccountCode) -> None:
    """Go on with an account that was paused because Stripe refused us."""
    with session.transaction("stripe resume") as connection:
        if not setup_store.resume_link(connection, _account_id(connection, account)):
            raise Refused(f"account {account!r} is not paused")
    say(f"{account} is tried again")


def profile_apply(
    account: AccountCode,
    tenant: AccountId,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="YAML or JSON.")],
) -> None:
    """Make the next version of a tenant's billing profile; it works for statements generated from now on."""
    try:
        profile = BillingProfile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{file} cannot be read: {error}") from error
    except ValidationError as error:
        wrong = "\n".join(f"  {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise Refused(f"{file} is no billing profile:\n{wrong}") from None
    with session.transaction("profile apply") as connection:
        try:
            tenant_id = _tenant_id(connection, account, tenant)
            setup_store.make_profile(connection, tenant_id, profile, database_now(connection))
        except SetupRefusedError as error:
            raise Refused(str(error)) from error
    say(f"{tenant} is billed on day {profile.billing_day}, beginning with the next statement")


def profile_show(account: AccountCode, tenant: AccountId, *, as_json: AsJson = False) -> None:
    """Show a tenant's billing profile, all versions."""
    with session.transaction("profile show") as connection:
        versions = setup_store.profile_versions(connection, _tenant_id(connection, account, tenant))
    rows = [
        {"made_at": each.made_at, "ended_at": each.ended_at, **each.profile.model_dump(mode="json")}
        for each in versions
    ]
    show(rows, as_json=as_json, title=f"billing profile of {tenant}", empty="none")


def profile_end(account: AccountCode, tenant: AccountId) -> None:
    """End a tenant's billing profile: statements generated from now on are not billed."""
    with session.transaction("profile end") as connection:
        if not setup_store.end_profile(
            connection, _tenant_id(connection, account, tenant), database_now(connection)
        ):
            raise Refused(f"tenant {tenant!r} has no billing profile")
    say(f"{tenant} is not billed any more")


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
    show([_with_month(row) for row in rows], as_json=as_json, title="invoices", empty="none")


def invoice_explain(statement: StatementId, *, as_json: AsJson = False) -> None:
    """Show an invoice's lines, each with the statement's lines it comes from, and what was asked of Stripe when."""
    with session.transaction("invoice explain") as connection:
        found = listing_store.explain_invoice(connection, statement)
    if found is None:
        raise Refused(f"statement {statement} has no invoice")
    invoice = _with_month(found.invoice)
    if as_json:
        print_json({"invoice": invoice, "lines": found.lines, "steps": found.steps})
        return
    show_one(invoice, as_json=False, title="invoice")
    show(found.lines, as_json=False, title="lines", empty="none")
    show(found.steps, as_json=False, title="steps", empty="none")


def invoice_preview(
    account: AccountCode, tenant: AccountId, month: Month, *, as_json: AsJson = False
) -> None:
    """Show what a closed month would be billed as by the tenant's present profile; nothing is sent."""
    with session.transaction("invoice preview") as connection:
        tenant_id = _tenant_id(connection, account, tenant)
        document = reading_store.statement_document(connection, period_argument(month), account, tenant)
        versions = setup_store.profile_versions(connection, tenant_id)
    if document is None:
        raise Refused(
            f"there is no statement of {tenant!r} for {month}: a month can be billed once it is closed"
        )
    present = [version for version in versions if version.ended_at is None]
    generated_at = document.entry.generated_at
    as_if = [ProfileVersion(each.id, generated_at, None, each.profile) for each in present]
    match plan_invoice(Statement.model_validate_json(document.body), generated_at, as_if):
        case ToBill() as plan:
            if as_json:
                print_json(plan)
                return
            show(plan.lines, as_json=False, title=f"{tenant}, {month}")
            show_one(
                {
                    "subtotal_minor": plan.subtotal_minor,
                    "currency": document.entry.currency,
                    "send_at": plan.send_at,
                },
                as_json=False,
                title="invoice",
            )
        case NotBilled():
            raise Refused(f"tenant {tenant!r} has no billing profile")
        case NothingToBill():
            say("nothing to bill: no invoice")
        case Blocked(reason):
            raise Refused(f"it cannot be billed: {reason}")


def invoice_retry(statement: StatementId) -> None:
    """Try an invoice again that waits, failed, is held or was deleted in Stripe."""
    with session.transaction("invoice retry") as connection:
        state = retry_store.retry_invoice(connection, statement, database_now(connection))
    if state is None:
        raise Refused(f"statement {statement} has no invoice that can be tried again")
    say(f"the invoice goes on from {state}")


def invoice_refresh() -> None:
    """Read in Stripe what became of scheduled invoices whose day has passed; the invoicer does it daily by itself."""
    settings = session.settings()
    try:
        gateway = stripe_gateway(settings)
    except ValueError as error:
        raise Refused(str(error)) from error
    with session.database("invoice refresh") as engine:
        invoicer = Invoicer(engine, gateway, utc_now)
        with engine.begin() as connection:
            accounts = [each.id for each in import_store.all_accounts(connection).values()]
            unread = [
                invoice_id
                for account_id in accounts
                for invoice_id in store.unread_invoices(
                    connection, account_id, utc_now(), due_only=False, rows_max=_unread_rows_max
                )
            ]
        for invoice_id in unread:
            refresh_invoice(invoicer, invoice_id)
    say(f"{len(unread)} invoices were read")


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
    """List phantom fees: on the account, for invoices sent on next to no usage."""
    month = period_argument(period).first_day if period else None
    with session.transaction("fees") as connection:
        rows = listing_store.list_fees(connection, account=account, period=month)
    show([_with_month(row) for row in rows], as_json=as_json, title="phantom fees", empty="none")


def _with_month(row: InvoiceListing | FeeListing) -> dict[str, Any]:
    """The row with its month written as everywhere else: 2026-10."""
    listed = {field.name: getattr(row, field.name) for field in fields(row)}
    return listed | {"period": str(Period.of(row.period))}


def _account_id(connection: Connection, account: str) -> int:
    try:
        return changes_store.find_account(connection, account).id
    except RefusedChangeError as error:
        raise Refused(str(error)) from error


def _tenant_id(connection: Connection, account: str, tenant: str) -> int:
    try:
        owner = changes_store.find_account(connection, account)
        return changes_store.find_tenant(connection, owner, tenant).id
    except RefusedChangeError as error:
        raise Refused(str(error)) from error
