"""Before and beside the schedule: what a month would be billed as, and invoices that are asked for once."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from sqlalchemy import Connection, Engine

from invoicing import customer_store, fee_store, listing_store, one_time_store, setup_store, store
from invoicing.invoicer import Invoicer
from invoicing.listing_store import InvoiceListing
from invoicing.one_time import NotAskedFor, OneTimeInvoice, Payer, plan_one_time
from invoicing.one_time_store import Asked
from invoicing.phantom import CurrencyWithoutFeeError
from invoicing.plan import ToBill
from invoicing.preview import Basis, Preview, choose_version, preview_one_time, preview_statement
from invoicing.profile import BillingProfile
from invoicing.setup_store import SetupRefusedError
from pipeline.cli import session
from pipeline.cli.billing import account_id, find_tenant_id
from pipeline.cli.directory import AccountCode, AccountId
from pipeline.cli.files import read_file
from pipeline.cli.months import Month
from pipeline.cli.output import AsJson, Refused, period_argument, print_json, say, show, show_one
from pipeline.clock import utc_now
from pipeline.invoicer import stripe_gateway
from rollup import reading_store, so_far_store
from rollup.months_store import database_now
from schemas.periods import Period
from schemas.statements import Statement

_SO_FAR: Final = "the month is not closed: usage so far, and the earliest day it can be sent"
_CLOSE_MARGIN: Final = timedelta(minutes=1)  # C1: the close comes a minute after the cutoff at the earliest


def invoice_preview(
    account: AccountCode,
    tenant: AccountId,
    month: Month,
    profile: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Try this profile, YAML or JSON, without applying it."
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what a month is billed as, or would be if it ended now: quantities, prices, rounding, total. Nothing is sent."""
    trial = None if profile is None else read_file(profile, BillingProfile, "billing profile")
    grace = session.settings().grace
    with session.transaction("invoice preview") as connection:
        try:
            found = _preview(connection, account, tenant, period_argument(month), trial, grace)
        except CurrencyWithoutFeeError as error:
            raise Refused(f"this account cannot send invoices: {error}") from error
    _show(found, as_json=as_json)
    if found.problem == "nothing_to_bill":
        say("nothing to bill: no invoice")
    elif found.problem is not None:
        raise Refused(f"it cannot be billed so: {found.problem}")


def invoice_one_time(
    account: AccountCode,
    tenant: AccountId,
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="What to ask for, YAML or JSON.")
    ] = None,
    item: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of a file: DESCRIPTION=PRICE, or DESCRIPTION=PRICE*QUANTITY; may be repeated."
        ),
    ] = None,
    tax_code: Annotated[str | None, typer.Option(help="The items' tax code, txcd_….")] = None,
    month: Annotated[
        str | None, typer.Option(help="The closed month whose usage the products count, such as 2026-10.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="A name of your own for it: asked for under it twice, it is sent once.")
    ] = None,
    *,
    again: Annotated[bool, typer.Option("--again", help="Send the same once more.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Show it and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send an invoice outside the schedule, at once: any products, with taxes if the tenant has them.

    Safe to repeat: the same request is the same invoice, until it is asked for with --again. The monthly invoice is not
    changed by it.
    """
    if (file is None) == (item is None) or (key is not None and again):
        raise typer.BadParameter("give a FILE or --item, and --key or --again, not both")
    with session.database("invoice one-time") as engine:
        try:
            with engine.begin() as connection:
                tenant_id = find_tenant_id(connection, account, tenant)
                payer = one_time_store.payer(connection, tenant_id)
                asked = _asked(file, item or [], tax_code, month, payer.currency)
                plan = _plan(connection, asked, payer, database_now(connection))
                shown = _shown(connection, tenant_id, plan, asked, payer)
                if preview:
                    _show(shown, as_json=as_json)
                    return
                name = one_time_store.one_time_key(connection, tenant_id, asked, key, again=again)
                made = one_time_store.ask_once(
                    connection, tenant_id, name, asked.month, plan, database_now(connection)
                )
        except SetupRefusedError as error:
            raise Refused(str(error)) from error
        if not as_json:
            _show(shown, as_json=False)
        _send(engine, account, made, as_json=as_json)


def _preview(
    connection: Connection,
    account: str,
    tenant: str,
    period: Period,
    trial: BillingProfile | None,
    grace: timedelta,
) -> Preview:
    tenant_id, now = find_tenant_id(connection, account, tenant), database_now(connection)
    owner = account_id(connection, account)
    document = reading_store.statement_document(connection, period, account, tenant)
    if document is not None:
        statement = Statement.model_validate_json(document.body)
        generated_at = document.entry.generated_at
    else:
        so_far = so_far_store.statement_so_far(connection, period, owner, tenant_id, now)
        if so_far is None:
            raise Refused(
                f"{tenant!r} has no usage to show for {period}: it is no month of this ledger, or of the tenant"
            )
        statement, generated_at = so_far, max(now, period.ends_at + grace + _CLOSE_MARGIN)
    row = listing_store.invoice_of(connection, tenant_id, period.first_day)
    versions = setup_store.profile_versions(connection, tenant_id)
    chosen = choose_version(
        versions, generated_at, decided_by=None if row is None else row.profile_id, trial=trial
    )
    if chosen is None:
        raise Refused(f"tenant {tenant!r} has no billing profile")
    basis: Basis = "closed" if document is not None else "so_far"
    notes = [_SO_FAR] if document is None else [] if row is None else [f"its invoice is {row.state}"]
    notes += _hindrances(connection, owner, tenant_id)
    return preview_statement(statement, generated_at, chosen, basis, notes)


def _hindrances(connection: Connection, account_id: int, tenant_id: int) -> list[str]:
    """What must be mended before Stripe can be asked, whatever the month comes to."""
    link = setup_store.link_in_force(connection, account_id)
    unlinked = ["it cannot be sent yet: no Stripe account is linked"] if link is None else []
    obstacle = customer_store.obstacle(customer_store.billing_details(connection, tenant_id))
    return unlinked + ([f"it cannot be sent yet: {obstacle.replace('_', ' ')}"] if obstacle else [])


def _asked(
    file: Path | None, items: list[str], tax_code: str | None, month: str | None, currency: str
) -> OneTimeInvoice:
    named: dict[str, Any] = {} if month is None else {"month": month}
    if file is not None:
        asked = read_file(file, OneTimeInvoice, "one-time invoice", currency=currency)
        return asked.model_copy(update=named)
    products = [_item(each, tax_code) for each in items]
    try:
        return OneTimeInvoice.model_validate({"products": products, "currency": currency, **named})
    except ValueError as error:
        raise Refused(f"it cannot be asked for so: {error}") from None


def _item(text: str, tax_code: str | None) -> dict[str, Any]:
    description, _, amount = text.rpartition("=")
    price, _, quantity = amount.partition("*")
    if not description or not price:
        raise Refused(f"{text!r} must be written as DESCRIPTION=PRICE or DESCRIPTION=PRICE*QUANTITY")
    product = {"kind": "flat", "description": description, "price": price, "quantity": quantity or "1"}
    return product if tax_code is None else product | {"tax_code": tax_code}


def _plan(connection: Connection, asked: OneTimeInvoice, payer: Payer, now: datetime) -> ToBill:
    document = None
    if asked.month is not None:
        month = period_argument(asked.month)
        document = reading_store.statement_document(connection, month, payer.account, payer.tenant)
    statement = None if document is None else Statement.model_validate_json(document.body)
    plan = plan_one_time(asked, payer, statement, now)
    if isinstance(plan, NotAskedFor):
        raise Refused(plan.reason)
    return plan


def _shown(
    connection: Connection, tenant_id: int, plan: ToBill, asked: OneTimeInvoice, payer: Payer
) -> Preview:
    month = Period.parse(asked.month) if asked.month else Period.of(plan.send_at)
    judged = fee_store.judged_at(connection, tenant_id, month.first_day, plan.send_at)
    owed = judged is not None and not fee_store.is_charged(connection, judged.statement_id)
    fee = judged.fee if judged is not None and owed else None
    return preview_one_time(plan, payer.account, payer.tenant, str(month), payer.currency, fee)


def _send(engine: Engine, account: str, made: Asked, *, as_json: bool) -> None:
    """Bring it to Stripe now, unless the invoicer is at work for this account or the account is paused: then it does."""
    with engine.begin() as guard:
        owner = account_id(guard, account)
        link = setup_store.link_in_force(guard, owner)
        if link is not None and link.paused_reason is None and store.hold_account(guard, owner):
            _work(engine, made.invoice_id)
    with engine.begin() as connection:
        found = listing_store.explain_invoice(connection, made.invoice_id)
    if found is None:
        raise Refused("it was written down and is gone")
    if as_json:
        print_json(found.invoice)
        return
    say(_told(found.invoice, made))


def _work(engine: Engine, invoice_id: UUID) -> None:
    try:
        gateway = stripe_gateway(session.settings())
    except ValueError:
        return  # it stays due: the invoicer, which has a way to Stripe, makes it
    Invoicer(engine, gateway, utc_now).work(invoice_id)


def _told(invoice: InvoiceListing, made: Asked) -> str:
    before = "" if made.new else "it was asked for before and is not sent again: "
    where = "" if invoice.stripe_invoice is None else f", {invoice.stripe_invoice} in Stripe"
    why = "" if invoice.reason is None else f" ({invoice.reason})"
    return f"{before}invoice {invoice.invoice_id} is {invoice.state}{where}{why}"


def _show(found: Preview, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    show(found.lines, as_json=False, title=f"{found.tenant}, {found.month} ({found.basis})", empty="no lines")
    hidden = {"lines", "subtotal_minor", "terms"}
    summary = {name: getattr(found, name) for name in found.__dataclass_fields__ if name not in hidden}
    terms = {} if found.terms is None else found.terms.model_dump()
    show_one(summary | terms | {"notes": "; ".join(found.notes) or None}, as_json=False, title="invoice")
