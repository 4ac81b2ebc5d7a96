"""The campaign's installation: two accounts in two currencies, their tenants, numbers and addresses, and the months."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from schemas.periods import Period

_LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)


class Line(NamedTuple):
    """A tenant with its number, its own address, and the address its account's tenants share."""

    account: str
    tenant: str
    currency: str
    number: str
    own_ip: str
    shared_ip: str


_ACCOUNTS: Final = (("north", "USD", "198.51.100"), ("south", "EUR", "203.0.113"))
LINES: Final = tuple(
    Line(
        account,
        f"t{n}.{account}.example.com",
        currency,
        f"+121255501{10 * place + n:02}",
        f"{network}.{n}",
        f"{network}.99",
    )
    for place, (account, currency, network) in enumerate(_ACCOUNTS, start=1)
    for n in range(1, 4)
)


def make_world(connection: Connection, months: tuple[Period, ...]) -> None:
    """Write it all down as history, make the months, and end the bootstrap."""
    for account, currency, network in _ACCOUNTS:
        account_id = _id(
            connection,
            "insert into accounts (code, name, currency, home_country, domestic_regions, made_at) "
            "values (:code, :code, :currency, 'US', '{US}', :at) returning id",
            code=account,
            currency=currency,
        )
        for line in (each for each in LINES if each.account == account):
            tenant_id = _id(
                connection,
                "insert into tenants (account_id, code, made_at) values (:account, :code, :at) returning id",
                account=account_id,
                code=line.tenant,
            )
            _id(
                connection,
                "insert into tenant_details (tenant_id, made_at, name, contact_name, billing_email, phone, address_line1, "
                "city, region, postal_code, country, address_validated_at) values (:tenant, :at, 'Example', 'Pat Example', "
                "'billing@example.com', '+12125550100', '1 Example Street', 'New York', 'NY', '10001', 'US', :at) "
                "returning tenant_id",
                tenant=tenant_id,
            )
            _id(
                connection,
                "insert into number_assignments (number, account_id, tenant_id, made_at) "
                "values (:number, :account, :tenant, :at) returning id",
                number=line.number,
                account=account_id,
                tenant=tenant_id,
            )
            _assign_ip(connection, line.own_ip, account_id, tenant_id)
        _assign_ip(connection, f"{network}.99", account_id, None)
    for month in months:
        connection.execute(text("select make_period(:month)"), {"month": month.first_day})
    connection.execute(text("update installation set state = 'running', bootstrap_finished_at = now()"))


def cut_connections(connection: Connection) -> int:
    """End every connection but this one; returns how many there were."""
    rows = connection.execute(
        text(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    )
    return len(rows.all())


def lock_sums(connection: Connection) -> None:
    """Keep everyone from writing monthly usage until this transaction ends."""
    connection.execute(text("lock table monthly_usage in exclusive mode"))


def closed_months(connection: Connection) -> int:
    """How many months are closed."""
    return int(connection.execute(text("select count(*) from periods where state = 'closed'")).scalar_one())


def _assign_ip(connection: Connection, ip: str, account_id: int, tenant_id: int | None) -> None:
    _id(
        connection,
        "insert into ip_assignments (network, account_id, tenant_id, made_at) "
        "values (:network, :account, :tenant, :at) returning id",
        network=ip,
        account=account_id,
        tenant=tenant_id,
    )


def _id(connection: Connection, statement: str, **parameters: object) -> int:
    return int(connection.execute(text(statement), {"at": _LONG_AGO, **parameters}).scalar_one())
