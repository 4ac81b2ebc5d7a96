"""Who owns what: accounts, tenants, numbers, IPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer
from sqlalchemy import Connection

from attribution import assignment_store, changes_store, listing_store
from attribution.details import AccountDetails, RefusedChangeError, TenantDetails
from invoicing.address import address_faults
from pipeline.cli import session
from pipeline.cli.output import AsJson, Refused, say, show
from rollup.tariff_store import TariffRefusedError
from schemas.periods import utc_text

AccountCode = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's code.")]
AccountId = Annotated[
    str, typer.Argument(metavar="TENANT", help="The tenant's Account ID, such as bigcustomer.mypbx.com.")
]

Number = Annotated[str, typer.Argument(help="E.164, or as dialled in the account's home country.")]
IpNetwork = Annotated[
    str, typer.Argument(help="An address or a network, such as 192.0.2.0/24 or 2001:db8::/48.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    account = typer.Typer(
        no_args_is_help=True, help="Accounts: the carrier's customers, who own numbers, IPs and tenants."
    )
    account.command("add")(account_add)
    account.command("list")(account_list)
    app.add_typer(account, name="account")
    tenant = typer.Typer(
        no_args_is_help=True, help="Tenants: an account's customers, known by their Account ID."
    )
    commands: dict[str, Callable[..., None]] = {
        "add": tenant_add,
        "change": tenant_change,
        "validate-address": tenant_validate_address,
        "end": tenant_end,
        "list": tenant_list,
        "history": tenant_history,
    }
    for name, command in commands.items():
        tenant.command(name)(command)
    app.add_typer(tenant, name="tenant")
    number = typer.Typer(
        no_args_is_help=True, help="Phone numbers and whose they are; a change works from now on."
    )
    number.command("assign")(number_assign)
    number.command("release")(number_release)
    number.command("list")(number_list)
    app.add_typer(number, name="number")
    ip = typer.Typer(
        no_args_is_help=True, help="IP networks: dedicated to a tenant, or shared (X-Tenant decides)."
    )
    ip.command("assign")(ip_assign)
    ip.command("release")(ip_release)
    ip.command("list")(ip_list)
    app.add_typer(ip, name="ip")


@contextmanager
def change(name: str) -> Iterator[tuple[Connection, datetime]]:
    """A change to the directory: one transaction at one instant that the database's clock gives (A7)."""
    try:
        with session.transaction(name) as connection:
            yield connection, changes_store.take_change_instant(connection)
    except (RefusedChangeError, TariffRefusedError) as error:
        raise Refused(str(error)) from error


@contextmanager
def reading(name: str) -> Iterator[Connection]:
    """A look at the directory; an unknown name is a refusal."""
    try:
        with session.transaction(name) as connection:
            yield connection
    except RefusedChangeError as error:
        raise Refused(str(error)) from error


def account_add(
    code: Annotated[str, typer.Argument(help="A handle: letters, digits, '.', '-' and '_'.")],
    name: Annotated[str, typer.Option(help="Its name.")],
    currency: Annotated[str, typer.Option(help="ISO 4217, such as USD.")] = "USD",
    country: Annotated[str, typer.Option(help="Home country, ISO 3166: whose dialling rules apply.")] = "US",
    region: Annotated[
        list[str] | None, typer.Option(help="A domestic region; may be repeated. US: US PR VI GU AS MP.")
    ] = None,
) -> None:
    """Make an account."""
    with change("account add") as (connection, made_at):
        details = AccountDetails(code, name, currency, country, tuple(region or ()))
        changes_store.make_account(connection, made_at, details)
    say(f"account {code} made at {utc_text(made_at)}")


def account_list(*, as_json: AsJson = False) -> None:
    """List accounts."""
    with session.transaction("account list") as connection:
        show(listing_store.list_accounts(connection), as_json=as_json, title="accounts", empty="none")


def tenant_add(
    account: AccountCode,
    tenant: AccountId,
    name: Annotated[str, typer.Option(help="The tenant's name.")],
    contact: Annotated[str, typer.Option(help="The contact's name.")],
    email: Annotated[str, typer.Option(help="Where invoices go.")],
    phone: Annotated[str, typer.Option(help="The contact's phone number.")],
    line1: Annotated[str, typer.Option(help="Street address.")],
    city: Annotated[str, typer.Option(help="City.")],
    region: Annotated[str, typer.Option(help="State or province.")],
    postal_code: Annotated[str, typer.Option(help="Postal code.")],
    country: Annotated[str, typer.Option(help="ISO 3166, such as US.")],
    line2: Annotated[str, typer.Option(help="Second line of the street address.")] = "",
) -> None:
    """Make a tenant; usage is attributed to it from this instant on."""
    details = TenantDetails(name, contact, email, phone, line1, city, region, postal_code, country, line2)
    with change("tenant add") as (connection, made_at):
        changes_store.make_tenant(connection, made_at, account, tenant, details)
    say(f"tenant {tenant} made at {utc_text(made_at)}")


def tenant_change(
    account: AccountCode,
    tenant: AccountId,
    name: Annotated[str | None, typer.Option(help="The tenant's name.")] = None,
    contact: Annotated[str | None, typer.Option(help="The contact's name.")] = None,
    email: Annotated[str | None, typer.Option(help="Where invoices go.")] = None,
    phone: Annotated[str | None, typer.Option(help="The contact's phone number.")] = None,
    line1: Annotated[str | None, typer.Option(help="Street address.")] = None,
    line2: Annotated[str | None, typer.Option(help="Second line of the street address.")] = None,
    city: Annotated[str | None, typer.Option(help="City.")] = None,
    region: Annotated[str | None, typer.Option(help="State or province.")] = None,
    postal_code: Annotated[str | None, typer.Option(help="Postal code.")] = None,
    country: Annotated[str | None, typer.Option(help="ISO 3166, such as US.")] = None,
) -> None:
    """Change what is known of a tenant; a changed address must be validated again."""
    given = {
        "name": name,
        "contact_name": contact,
        "billing_email": email,
        "phone": phone,
        "address_line1": line1,
        "address_line2": line2,
        "city": city,
        "region": region,
        "postal_code": postal_code,
        "country": country,
    }
    with change("tenant change") as (connection, made_at):
        found = changes_store.find_tenant(connection, changes_store.find_account(connection, account), tenant)
        before, _ = changes_store.present_details(connection, found.id)
        known = {field: getattr(before, field) for field in given}
        details = TenantDetails(
            **known | {field: value for field, value in given.items() if value is not None}
        )
        changes_store.change_tenant_details(connection, made_at, account, tenant, details)
    say(f"tenant {tenant} changed at {utc_text(made_at)}")


def tenant_validate_address(account: AccountCode, tenant: AccountId) -> None:
    """Check a tenant's address against its country's rules; a billing profile can be made only after that."""
    with change("tenant validate-address") as (connection, made_at):
        found = changes_store.find_tenant(connection, changes_store.find_account(connection, account), tenant)
        details, _ = changes_store.present_details(connection, found.id)
        faults = address_faults(
            line1=details.address_line1,
            city=details.city,
            region=details.region,
            postal_code=details.postal_code,
            country=details.country,
        )
        if faults:
            raise Refused(f"the address of {tenant} is not valid: {'; '.join(faults)}")
        changes_store.mark_address_validated(connection, made_at, account, tenant)
    say(f"the address of {tenant} is valid")


def tenant_end(account: AccountCode, tenant: AccountId) -> None:
    """End a tenant: its numbers go back to the account, its dedicated IPs become shared; its statements go on."""
    with change("tenant end") as (connection, made_at):
        changes_store.end_tenant(connection, made_at, account, tenant)
    say(f"tenant {tenant} ended at {utc_text(made_at)}")


def tenant_list(account: AccountCode, *, as_json: AsJson = False) -> None:
    """List an account's tenants."""
    with reading("tenant list") as connection:
        show(
            listing_store.list_tenants(connection, account),
            as_json=as_json,
            title=f"tenants of {account}",
            empty="none",
        )


def tenant_history(account: AccountCode, tenant: AccountId, *, as_json: AsJson = False) -> None:
    """Show all that ever happened to a tenant and its assets."""
    with reading("tenant history") as connection:
        show(
            listing_store.tenant_history(connection, account, tenant),
            as_json=as_json,
            title=f"history of {tenant}",
        )


def number_assign(
    account: AccountCode,
    number: Number,
    tenant: Annotated[
        str | None, typer.Option(help="The Account ID; left out: the account's, without a tenant.")
    ] = None,
) -> None:
    """Give a number to an account or its tenant, from now on."""
    with change("number assign") as (connection, made_at):
        assignment_store.assign_number(connection, made_at, account, number, tenant)
    say(f"{number} is {tenant or account}'s from {utc_text(made_at)}")


def number_release(account: AccountCode, number: Number) -> None:
    """Take a number from its account: nobody owns it from now on."""
    with change("number release") as (connection, made_at):
        assignment_store.release_number(connection, made_at, account, number)
    say(f"{number} is nobody's from {utc_text(made_at)}")


def number_list(
    account: AccountCode,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List an account's numbers."""
    with reading("number list") as connection:
        rows = list(listing_store.list_numbers(connection, account, tenant))
    show(rows, as_json=as_json, title=f"numbers of {account}", empty="none")


def ip_assign(
    account: AccountCode,
    network: IpNetwork,
    tenant: Annotated[str | None, typer.Option(help="Dedicated to this tenant; left out: shared.")] = None,
    default_tenant: Annotated[
        str | None, typer.Option(help="Of a shared IP: whose calls without X-Tenant are.")
    ] = None,
) -> None:
    """Give an IP network to an account, dedicated to a tenant or shared, from now on."""
    with change("ip assign") as (connection, made_at):
        assignment_store.assign_ip(connection, made_at, account, network, tenant, default_tenant)
    kind = f"dedicated to {tenant}" if tenant else "shared"
    say(f"{network} is {account}'s, {kind}, from {utc_text(made_at)}")


def ip_release(account: AccountCode, network: IpNetwork) -> None:
    """Take an IP network from its account: nobody owns it from now on."""
    with change("ip release") as (connection, made_at):
        assignment_store.release_ip(connection, made_at, account, network)
    say(f"{network} is nobody's from {utc_text(made_at)}")


def ip_list(account: AccountCode, *, as_json: AsJson = False) -> None:
    """List an account's IP networks."""
    with reading("ip list") as connection:
        show(
            listing_store.list_ips(connection, account),
            as_json=as_json,
            title=f"IPs of {account}",
            empty="none",
        )
