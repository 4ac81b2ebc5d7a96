"""Setting an account up to send invoices: its Stripe account, its tenants' customers and billing profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection, Engine

from attribution import changes_store
from attribution.details import RefusedChangeError
from invoicing import customer_store, retry_store, setup_store, store
from invoicing.customers import Customers
from invoicing.gateway import StripeGateway
from invoicing.outcomes import Ok
from invoicing.profile import BillingProfile
from invoicing.setup_store import SetupRefusedError, StripeLink
from pipeline.cli import session
from pipeline.cli.directory import AccountCode, AccountId
from pipeline.cli.files import read_file
from pipeline.cli.output import EXIT_WAITING, AsJson, Refused, say, show
from pipeline.clock import utc_now
from pipeline.invoicer import stripe_gateway
from rollup.months_store import database_now


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    stripe = typer.Typer(
        no_args_is_help=True, help="An account's own Stripe account, linked and unlinked at will."
    )
    stripe.command("link")(stripe_link)
    stripe.command("unlink")(stripe_unlink)
    stripe.command("resume")(stripe_resume)
    stripe.command("customer")(stripe_customer)
    app.add_typer(stripe, name="stripe")
    profile = typer.Typer(no_args_is_help=True, help="Billing profiles: what to bill a tenant, and when.")
    profile.command("apply")(profile_apply)
    profile.command("show")(profile_show)
    profile.command("end")(profile_end)
    app.add_typer(profile, name="profile")


def stripe_link(
    account: AccountCode,
    stripe_account: Annotated[str, typer.Argument(help="The connected account, acct_….")],
) -> None:
    """Link an account's own Stripe account; from then on its tenants can be invoiced.

    Invoices of this month's statements that only waited for it go on; those of earlier months wait for `invoice retry`.
    """
    with session.transaction("stripe link") as connection:
        owner, now = account_id(connection, account), database_now(connection)
        try:
            setup_store.link_stripe(connection, owner, stripe_account, now)
        except SetupRefusedError as error:
            raise Refused(str(error)) from error
        woken = retry_store.wake_linked(connection, owner, now)
        waiting = [
            *retry_store.stopped_invoices(connection, owner, "no_stripe_link"),
            *retry_store.stopped_invoices(connection, owner, "unlinked"),
        ]
    say(f"{account} sends its invoices through {stripe_account}")
    if woken:
        say(f"{woken} invoices of this month go on")
    if waiting:
        say(f"{len(waiting)} of earlier months wait: `invoice retry --account {account}` sends them")


def stripe_unlink(account: AccountCode) -> None:
    """Unlink it: no new invoices; scheduled ones stay Stripe's; statements go on."""
    with session.transaction("stripe unlink") as connection:
        owner = account_id(connection, account)
        if not setup_store.unlink_stripe(connection, owner, database_now(connection)):
            raise Refused(f"account {account!r} has no Stripe account linked")
        scheduled = setup_store.scheduled_count(connection, owner)
    say(f"{account} sends no more invoices; {scheduled} scheduled ones stay Stripe's")


def stripe_resume(account: AccountCode) -> None:
    """Go on with an account that was paused because Stripe refused us."""
    with session.transaction("stripe resume") as connection:
        if not setup_store.resume_link(connection, account_id(connection, account)):
            raise Refused(f"account {account!r} is not paused")
    say(f"{account} is tried again")


def stripe_customer(
    account: AccountCode,
    tenant: AccountId,
    customer: Annotated[str, typer.Argument(help="An existing customer of that Stripe account, cus_….")],
) -> None:
    """Link a tenant to a customer that its account's Stripe has already; nothing of that customer is changed."""
    with session.database("stripe customer") as engine:
        with engine.begin() as connection:
            tenant_id = find_tenant_id(connection, account, tenant)
            link = _linked(connection, account)
        found = gateway().customer(link.stripe_account, customer)
        if not isinstance(found, Ok):
            raise Refused(found.reason)
        with engine.begin() as connection:
            customer_store.save_customer(
                connection, tenant_id, link.stripe_account, customer, "theirs", database_now(connection)
            )
    charged = "has" if found.value.chargeable else "has no"
    say(f"{tenant} is {customer} of {link.stripe_account}, which {charged} payment method")


def profile_apply(
    account: AccountCode,
    tenant: AccountId,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="YAML or JSON.")],
) -> None:
    """Make the next version of a tenant's billing profile; it works for statements generated from now on.

    With taxes on, Stripe must know the tenant's address: its location check comes first. A file, with every kind of product:

    \b
    billing_day: 20          # 29 to 31: the last day of shorter months
    currency: USD
    auto_charge: false       # true: charge the payment method, if there is one
    terms_days: 30           # of an invoice that is sent
    taxes: false             # true: each product needs a tax_code, txcd_…
    products:
    - {kind: flat, description: Platform, price: "25", quantity: "1"}
    - {kind: minutes, description: Calls, usage_classes: [outbound_conversational],
       price: "0.012", included_minutes: "500", measure: billed}
    - {kind: service_events, description: Names, usage_class: caller_id_lookup, price: "0.008"}
    - {kind: numbers, description: Local numbers, usage_class: number_local, price: "1.50"}
    - {kind: peak_channels, description: Channels, price: "10"}
    - {kind: cost_plus, description: At cost, markup_percent: "20"}

    `invoice preview --profile FILE` tries it without applying it.
    """  # noqa: D301 (typer's mark for lines that are not to be joined)
    profile = read_file(file, BillingProfile, "billing profile")
    with session.database("profile apply") as engine:
        try:
            with engine.begin() as connection:
                tenant_id = find_tenant_id(connection, account, tenant)
                setup_store.refuse_profile(connection, tenant_id, profile, database_now(connection))
            if profile.taxes:
                _check_location(engine, account, tenant_id)
            with engine.begin() as connection:
                setup_store.make_profile(connection, tenant_id, profile, database_now(connection))
        except SetupRefusedError as error:
            raise Refused(str(error)) from error
    say(f"{tenant} is billed on day {profile.billing_day}, beginning with the next statement")


def profile_show(account: AccountCode, tenant: AccountId, *, as_json: AsJson = False) -> None:
    """Show a tenant's billing profile, all versions."""
    with session.transaction("profile show") as connection:
        versions = setup_store.profile_versions(connection, find_tenant_id(connection, account, tenant))
    rows = [
        {"made_at": each.made_at, "ended_at": each.ended_at, **each.profile.model_dump(mode="json")}
        for each in versions
    ]
    show(rows, as_json=as_json, title=f"billing profile of {tenant}", empty="none")


def profile_end(account: AccountCode, tenant: AccountId) -> None:
    """End a tenant's billing profile: statements generated from now on are not billed."""
    with session.transaction("profile end") as connection:
        tenant_id = find_tenant_id(connection, account, tenant)
        if not setup_store.end_profile(connection, tenant_id, database_now(connection)):
            raise Refused(f"tenant {tenant!r} has no billing profile")
    say(f"{tenant} is not billed any more")


def gateway() -> StripeGateway:
    """Stripe, as the settings say."""
    try:
        return stripe_gateway(session.settings())
    except ValueError as error:
        raise Refused(str(error)) from error


def account_id(connection: Connection, account: str) -> int:
    """The account of that code."""
    try:
        return changes_store.find_account(connection, account).id
    except RefusedChangeError as error:
        raise Refused(str(error)) from error


def find_tenant_id(connection: Connection, account: str, tenant: str) -> int:
    """The tenant of that Account ID."""
    try:
        owner = changes_store.find_account(connection, account)
        return changes_store.find_tenant(connection, owner, tenant).id
    except RefusedChangeError as error:
        raise Refused(str(error)) from error


def _linked(connection: Connection, account: str) -> StripeLink:
    link = setup_store.link_in_force(connection, account_id(connection, account))
    if link is None:
        raise Refused(f"account {account!r} has no Stripe account linked; `stripe link` it first")
    return link


def _check_location(engine: Engine, account: str, tenant_id: int) -> None:
    """Stripe's location check of a tenant that is to be taxed (I1)."""
    with engine.begin() as guard:
        link = _linked(guard, account)
        if not store.hold_account(guard, link.account_id):
            raise Refused(
                f"invoices of {account} are being made right now; try again", exit_code=EXIT_WAITING
            )
        located = Customers(engine, gateway(), utc_now).check_location(link.stripe_account, tenant_id)
    if not isinstance(located, Ok):
        raise Refused(f"Stripe's location check, which taxes need: {located.reason}")
