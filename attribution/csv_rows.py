"""What a CSV file of accounts, tenants, numbers or IPs says, row by row, and what is wrong with it. Pure.

Row 1 is the header; columns may stand in any order. Nothing stops at the first error: each bad row is noted with its
number, the value and the reason, and the rest is checked too.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple

from attribution.assets import Account, Tenant, end_microseconds
from attribution.details import (
    AccountDetails,
    RefusedChangeError,
    TenantDetails,
    checked_account,
    checked_code,
    checked_details,
    checked_network,
    checked_number,
)
from schemas.network import Network

Kind = Literal["accounts", "tenants", "numbers", "ips"]
bad_rows_shown_max: Final = 100
_value_shown_length_max: Final = 100

_DETAILS: Final = (
    "name contact_name billing_email phone address_line1 city region postal_code country"  # TenantDetails
)
REQUIRED: Final[Mapping[Kind, frozenset[str]]] = {
    "accounts": frozenset({"code", "name", "currency", "home_country"}),
    "tenants": frozenset({"account", "code", *_DETAILS.split()}),
    "numbers": frozenset({"account", "number", "tenant"}),
    "ips": frozenset({"account", "network", "tenant"}),
}
OPTIONAL: Final[Mapping[Kind, frozenset[str]]] = {
    "accounts": frozenset({"domestic_regions"}),
    "tenants": frozenset({"address_line2"}),
    "numbers": frozenset(),
    "ips": frozenset({"default_tenant"}),
}
TIMES: Final[Mapping[Kind, frozenset[str]]] = {
    "accounts": frozenset({"made_at"}),
    "tenants": frozenset({"made_at", "ended_at"}),
    "numbers": frozenset({"made_at", "ended_at"}),
    "ips": frozenset({"made_at", "ended_at"}),
}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be imported: its number in the file (the header is 1), the value, and why."""

    row: int
    value: str
    reason: str


class BadImportError(RefusedChangeError):
    """Some rows cannot be imported, so none was: `bad_rows` holds the first, `bad_row_count` is how many there are."""

    def __init__(self, bad_rows: Sequence[BadRow], bad_row_count: int) -> None:
        self.bad_rows = tuple(bad_rows)
        self.bad_row_count = bad_row_count
        super().__init__(
            f"nothing was imported: {bad_row_count} rows are bad; row {bad_rows[0].row}: {bad_rows[0].reason}"
        )


@dataclass(slots=True)
class BadRows:
    """The bad rows of a file so far: all their numbers, and what is wrong with the first ones."""

    rows: set[int] = field(default_factory=set)
    shown: list[BadRow] = field(default_factory=list)

    def note(self, row: int, value: str, reason: str) -> None:
        """Note a row as bad; its first reason stands."""
        if row not in self.rows and len(self.shown) < bad_rows_shown_max:
            self.shown.append(BadRow(row, value[:_value_shown_length_max], reason))
        self.rows.add(row)

    def refuse_any(self) -> None:
        """Raise what was noted.

        Raises:
            BadImportError: a row was noted.
        """
        if self.rows:
            raise BadImportError(sorted(self.shown, key=lambda bad: bad.row), len(self.rows))


class AccountRow(NamedTuple):
    """One account of a file."""

    row: int
    details: AccountDetails
    made_at: datetime


class TenantRow(NamedTuple):
    """One tenant of a file."""

    row: int
    account_id: int
    code: str
    details: TenantDetails
    made_at: datetime
    ended_at: datetime | None


class NumberRow(NamedTuple):
    """One number assignment of a file."""

    row: int
    number: str
    account_id: int
    tenant_id: int | None
    made_at: datetime
    ended_at: datetime | None


class IpRow(NamedTuple):
    """One IP assignment of a file."""

    row: int
    network: Network
    account_id: int
    tenant_id: int | None
    default_tenant_id: int | None
    made_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Known:
    """What the rows of a file may refer to, and when they are made.

    `own_times`: rows may carry their own times, up to `instant` (A8). `tenants`: by account id and exact Account ID.
    """

    instant: datetime
    own_times: bool
    accounts: Mapping[str, Account]
    tenants: Mapping[tuple[int, str], Tenant]


class Cells(NamedTuple):
    """One row as it stands in the file: its number, and each column's text, trimmed."""

    row: int
    text: Mapping[str, str]


def read_cells(kind: Kind, lines: Iterable[str], known: Known, bad: BadRows) -> Iterator[Cells]:
    """The rows of a file under their column names; blank lines are skipped.

    Raises:
        BadImportError: the header is not one of this kind.
    """
    reader = csv.reader(lines, strict=True)
    names: list[str] = []
    row = 0
    try:
        for row, values in enumerate(reader, start=1):
            if not names:
                names = [name.strip().lstrip("\ufeff").lower() for name in values]
                _check_header(kind, names, known)
            elif len(values) == len(names):
                yield Cells(row, dict(zip(names, map(str.strip, values), strict=True)))
            elif values:
                bad.note(row, ",".join(values), f"has {len(values)} values, the header {len(names)}")
    except csv.Error as error:
        bad.note(row + 1, "", f"cannot be read as CSV: {error}")
    if not names:
        bad.note(1, "", "the file is empty: a header is missing")


def account_row(cells: Cells, known: Known) -> AccountRow:
    """Read an account; raises RefusedChangeError where it cannot be made."""
    details = AccountDetails(
        code=cells.text["code"],
        name=cells.text["name"],
        currency=cells.text["currency"],
        home_country=cells.text["home_country"],
        domestic_regions=tuple(cells.text.get("domestic_regions", "").split()),
    )
    made_at, _ = _times(cells, known)
    return AccountRow(cells.row, checked_account(details), made_at)


def tenant_row(cells: Cells, known: Known) -> TenantRow:
    """Read a tenant; raises RefusedChangeError where it cannot be made."""
    account = _account(cells, known)
    details = TenantDetails(
        **{name: cells.text[name] for name in _DETAILS.split()},
        address_line2=cells.text.get("address_line2", ""),
    )
    code = checked_code(cells.text["code"])
    return TenantRow(cells.row, account.id, code, checked_details(details), *_times(cells, known))


def number_row(cells: Cells, known: Known) -> NumberRow:
    """Read a number assignment; raises RefusedChangeError where it cannot be made."""
    account = _account(cells, known)
    number = checked_number(cells.text["number"], account.home_country)
    made_at, ended_at = _times(cells, known)
    tenant_id = _tenant_id(cells, "tenant", account, made_at, ended_at, known)
    return NumberRow(cells.row, number, account.id, tenant_id, made_at, ended_at)


def ip_row(cells: Cells, known: Known) -> IpRow:
    """Read an IP assignment; raises RefusedChangeError where it cannot be made."""
    account = _account(cells, known)
    network = checked_network(cells.text["network"])
    made_at, ended_at = _times(cells, known)
    tenant_id = _tenant_id(cells, "tenant", account, made_at, ended_at, known)
    default_id = _tenant_id(cells, "default_tenant", account, made_at, ended_at, known)
    if tenant_id is not None and default_id is not None:
        raise RefusedChangeError("an IP is dedicated to a tenant or shared with a default tenant, not both")
    return IpRow(cells.row, network, account.id, tenant_id, default_id, made_at, ended_at)


def _check_header(kind: Kind, names: Sequence[str], known: Known) -> None:
    times = TIMES[kind]
    bad = BadRows()
    if missing := REQUIRED[kind] - set(names):
        bad.note(1, ",".join(names), f"columns are missing: {', '.join(sorted(missing))}")
    if unknown := set(names) - REQUIRED[kind] - OPTIONAL[kind] - times:
        bad.note(1, ",".join(sorted(unknown)), f"no such columns in a file of {kind}")
    if len(set(names)) != len(names):
        bad.note(1, ",".join(names), "a column stands twice")
    if not known.own_times and times & set(names):
        bad.note(
            1, ", ".join(sorted(times & set(names))), "the installation runs: no change carries its own time"
        )
    bad.refuse_any()


def _times(cells: Cells, known: Known) -> tuple[datetime, datetime | None]:
    made_at = _time(cells, "made_at", known) or known.instant
    ended_at = _time(cells, "ended_at", known)
    if ended_at is not None and ended_at <= made_at:
        raise RefusedChangeError("ended_at is not after made_at")
    return made_at, ended_at


def _time(cells: Cells, name: str, known: Known) -> datetime | None:
    text = cells.text.get(name, "")
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise RefusedChangeError(f"{name} {text!r} is no time; write it as 2026-10-31T23:59:59Z") from None
    if instant.tzinfo is None:
        raise RefusedChangeError(f"{name} {text!r} has no time zone; write it as 2026-10-31T23:59:59Z")
    if instant > known.instant:
        raise RefusedChangeError(f"{name} {text!r} lies in the future")
    return instant


def _account(cells: Cells, known: Known) -> Account:
    account = known.accounts.get(cells.text["account"])
    if account is None:
        raise RefusedChangeError(f"there is no account {cells.text['account']!r}")
    return account


def _tenant_id(
    cells: Cells,
    column: str,
    account: Account,
    made_at: datetime,
    ended_at: datetime | None,
    known: Known,
) -> int | None:
    """The tenant that a column names, where it existed all the time; None where the column is empty."""
    code = cells.text.get(column, "")
    if not code:
        return None
    tenant = known.tenants.get((account.id, code))
    if tenant is None:
        raise RefusedChangeError(f"account {account.code!r} has no tenant {code!r}")
    if made_at < tenant.made_at or end_microseconds(ended_at) > end_microseconds(tenant.ended_at):
        raise RefusedChangeError(f"tenant {code!r} did not exist all that time")
    return tenant.id
