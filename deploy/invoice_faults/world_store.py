"""The campaign's accounts, tenants, profiles and statements as rows, and what the database says at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, text

from deploy.invoice_faults.statements import CLOSED_AT, MONTHS, Made, Tenant
from invoicing import setup_store
from invoicing.profile import BillingProfile
from schemas.periods import Period
from schemas.statements import Statement, sha256_hex

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the product says became of a statement."""

    statement_id: str
    state: str
    reason: str | None
    notice: str | None
    stripe_account: str | None
    stripe_invoice: str | None
    subtotal_minor: int | None


@dataclass(frozen=True, slots=True)
class Fee:
    """A phantom fee."""

    statement_id: str
    amount: Decimal
    currency: str


def write_world(connection: Connection, made: Sequence[Made]) -> None:
    """Everything that was there before the first event."""
    codes = sorted({each.expected.tenant.account for each in made})
    accounts = {code: _account(connection, code) for code in codes}
    tenants: dict[str, int] = {}
    for month in MONTHS:
        connection.execute(
            text("insert into periods (period) values (:period) on conflict do nothing"),
            {"period": Period.parse(month).first_day},
        )
    for sequence, each in enumerate(made, start=1):
        tenant = each.expected.tenant
        if tenant.code not in tenants:
            tenants[tenant.code] = _tenant(connection, accounts[tenant.account], tenant)
        _statement(connection, sequence, each.statement, accounts[tenant.account], tenants[tenant.code])


def recorded(connection: Connection) -> list[Recorded]:
    """Every invoice row."""
    rows = connection.execute(
        text(
            "select statement_id, state, reason, notice, stripe_account, stripe_invoice, subtotal_minor "
            "from invoices"
        )
    )
    return [
        Recorded(
            str(row.statement_id),
            row.state,
            row.reason,
            row.notice,
            row.stripe_account,
            row.stripe_invoice,
            row.subtotal_minor,
        )
        for row in rows
    ]


def fees(connection: Connection) -> list[Fee]:
    """Every phantom fee."""
    rows = connection.execute(text("select statement_id, amount, currency from phantom_fees"))
    return [Fee(str(row.statement_id), row.amount, row.currency) for row in rows]


def settled(connection: Connection) -> int:
    """How many statements have come as far as they go by themselves before their billing day, well or not."""
    query = "select count(*) from invoices where state not in ('received', 'drafting', 'drafted')"
    return int(connection.execute(text(query)).scalar_one())


def unsent(connection: Connection) -> int:
    """How many invoices are still on their way to being sent."""
    query = (
        "select count(*) from invoices "
        "where state in ('received', 'drafting', 'drafted', 'scheduled', 'finalization_failed')"
    )
    return int(connection.execute(text(query)).scalar_one())


def sessions(connection: Connection, name: str) -> int:
    """How many connections a program has."""
    query = "select count(*) from pg_stat_activity where application_name = :name"
    return int(connection.execute(text(query), {"name": name}).scalar_one())


def cut_sessions(connection: Connection, names: Sequence[str]) -> int:
    """End these programs' connections, and with them the locks they hold; gives how many there were."""
    query = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = any(:names)"
    )
    return int(connection.execute(text(query), {"names": list(names)}).scalar_one())


def _account(connection: Connection, code: str) -> int:
    account_id: int = connection.execute(
        text(
            "insert into accounts (code, name, currency, home_country, domestic_regions, made_at) "
            "values (:code, :code, 'USD', 'US', array['US'], :made_at) returning id"
        ),
        {"code": code, "made_at": LONG_AGO},
    ).scalar_one()
    setup_store.link_stripe(connection, account_id, f"acct_{code.replace('-', '')}", LONG_AGO)
    return account_id


def _tenant(connection: Connection, account_id: int, tenant: Tenant) -> int:
    tenant_id: int = connection.execute(
        text(
            "insert into tenants (account_id, code, made_at) values (:account_id, :code, :made_at) returning id"
        ),
        {"account_id": account_id, "code": tenant.code, "made_at": LONG_AGO},
    ).scalar_one()
    connection.execute(
        text(
            "insert into tenant_details (tenant_id, made_at, name, contact_name, billing_email, phone, address_line1, "
            "city, region, postal_code, country, address_validated_at) values (:id, :made_at, :code, 'Ada Example', "
            ":email, '+12125550100', '1 Example Street', 'New York', 'NY', '10001', 'US', :made_at)"
        ),
        {"id": tenant_id, "code": tenant.code, "email": tenant.email, "made_at": LONG_AGO},
    )
    if tenant.products:
        profile = {
            "billing_day": tenant.billing_day,
            "auto_charge": tenant.auto_charge,
            "taxes": tenant.taxes,
            "terms_days": tenant.terms_days,
            "currency": "USD",
            "products": tenant.products,
        }
        made_at = LONG_AGO + timedelta(days=1)
        setup_store.make_profile(connection, tenant_id, BillingProfile.model_validate(profile), made_at)
    return tenant_id


def _statement(
    connection: Connection, sequence: int, statement: Statement, account_id: int, tenant_id: int
) -> None:
    body = statement.canonical_bytes()
    connection.execute(
        text(
            "insert into statements (sequence, id, period, kind, account_id, tenant_id, currency, usage_cost, "
            "total_cost, body, sha256, chain, generated_at) values (:sequence, :id, :period, 'tenant', :account_id, "
            ":tenant_id, 'USD', :usage_cost, :total_cost, :body, :sha256, '', :generated_at)"
        ),
        {
            "sequence": sequence,
            "id": statement.statement_id,
            "period": Period.parse(statement.period).first_day,
            "account_id": account_id,
            "tenant_id": tenant_id,
            "usage_cost": statement.totals.usage_cost,
            "total_cost": statement.totals.total_cost,
            "body": body,
            "sha256": sha256_hex(body),
            "generated_at": CLOSED_AT,
        },
    )
