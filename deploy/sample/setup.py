"""Putting the sample carrier into an empty installation, as an operator would: CSV files first, then the rest."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import datetime

from sqlalchemy import Connection, Engine

from attribution.changes_store import (
    find_account,
    find_tenant,
    mark_address_validated,
    take_change_instant,
)
from attribution.importing import Kind, import_csv
from attribution.installation_store import finish_bootstrap
from deploy.sample.carrier import SampleCarrier
from invoicing.setup_store import link_stripe, make_profile
from rollup.months_store import database_now, make_month
from rollup.tariff_store import NewTariff, add_tariff
from schemas.periods import Period

_ADDRESSES = {
    "US": ("1 Example Street", "New York", "NY", "10001", "US", "+12125550100"),
    "DE": ("Beispielstrasse 1", "Berlin", "Berlin", "10115", "DE", "+493023125000"),
}


def import_history(engine: Engine, carrier: SampleCarrier, told: Callable[[str, int], None]) -> None:
    """Import accounts, tenants, numbers and networks with their original times (A8); `told` hears of each file."""
    for kind, rows in _files(carrier):
        with engine.begin() as connection:
            report = import_csv(connection, take_change_instant(connection), kind, rows)
        told(kind, report.made)


def set_up_billing(engine: Engine, carrier: SampleCarrier, *, linked: bool = True) -> None:
    """Tariffs, validated addresses, billing profiles, and Stripe accounts that exist in the sandbox only (`linked`)."""
    with engine.begin() as connection:
        made_at = take_change_instant(connection)
        accounts = {each.code: find_account(connection, each.code) for each in carrier.accounts}
        for tariff in carrier.tariffs:
            new = NewTariff(
                account_id=accounts[tariff.account].id,
                usage_class=tariff.usage_class,
                effective_at=carrier.since,
                unit=tariff.unit,
                cost=tariff.cost,
                prefix=tariff.prefix,
                increment_first_seconds=tariff.first_seconds,
                increment_next_seconds=tariff.next_seconds,
            )
            add_tariff(connection, made_at, new)
        for account in carrier.accounts:
            if linked and account.stripe_account is not None:
                link_stripe(connection, accounts[account.code].id, account.stripe_account, made_at)
        _make_profiles(connection, carrier, made_at)


def finish(engine: Engine, first: Period, months_ahead: int) -> None:
    """Make the months from the first one to bill, and end the bootstrap, for good."""
    with engine.begin() as connection:
        now = database_now(connection)
        month = first
        while month <= Period.of(now).plus(months_ahead):
            make_month(connection, month)
            month = month.next()
        finish_bootstrap(connection, now)


def _make_profiles(connection: Connection, carrier: SampleCarrier, made_at: datetime) -> None:
    for tenant in carrier.tenants:
        if tenant.profile is not None:
            account = find_account(connection, tenant.account)
            mark_address_validated(connection, made_at, tenant.account, tenant.code)
            make_profile(
                connection, find_tenant(connection, account, tenant.code).id, tenant.profile, made_at
            )


def _files(carrier: SampleCarrier) -> Iterator[tuple[Kind, list[str]]]:
    since = carrier.since.isoformat()
    countries = {each.code: each.home_country for each in carrier.accounts}
    yield (
        "accounts",
        _csv(
            ("code", "name", "currency", "home_country", "made_at"),
            [(each.code, each.name, each.currency, each.home_country, since) for each in carrier.accounts],
        ),
    )
    yield (
        "tenants",
        _csv(
            (
                *(
                    "account",
                    "code",
                    "name",
                    "contact_name",
                    "billing_email",
                    "address_line1",
                    "city",
                    "region",
                ),
                *("postal_code", "country", "phone", "made_at"),
            ),
            [
                (
                    *(each.account, each.code, each.name, "Pat Example", "billing@example.com"),
                    *_ADDRESSES[countries[each.account]],
                    each.made_at.isoformat(),
                )
                for each in carrier.tenants
            ],
        ),
    )
    yield (
        "numbers",
        _csv(
            ("account", "number", "tenant", "made_at", "ended_at"),
            [
                (each.account, each.number, each.tenant, each.made_at.isoformat(), _text(each.ended_at))
                for each in carrier.numbers
            ],
        ),
    )
    yield (
        "ips",
        _csv(
            ("account", "network", "tenant", "default_tenant", "made_at"),
            [
                (each.account, each.network, each.tenant, each.default_tenant, since)
                for each in carrier.networks
            ],
        ),
    )


def _csv(header: tuple[str, ...], rows: list[tuple[str | None, ...]]) -> list[str]:
    file = io.StringIO()
    csv.writer(file).writerows([header, *rows])
    return file.getvalue().splitlines(keepends=True)


def _text(instant: datetime | None) -> str:
    return instant.isoformat() if instant else ""
