"""How a directory comes in from CSV files: in bulk, and all of it or nothing.

One file holds one kind of rows; the first row names the columns, in any order:

- accounts: code, name, currency, home_country, [domestic_regions: separated by blanks]
- tenants: account, code, name, contact_name, billing_email, phone, address_line1, [address_line2], city, region,
  postal_code, country
- numbers: account, number, tenant (empty: the account's, without a tenant)
- ips: account, network, tenant (empty: shared), [default_tenant]

Everything is made at one instant. In the state `bootstrap` rows may carry their own history in `made_at` and
`ended_at` (accounts: `made_at`); a running installation refuses these columns (A7, A8). An asset that the account has
already is moved, or left alone where nothing changes, so a corrected file can be sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy import Connection

from attribution import import_store
from attribution.columns_store import Progress, no_progress
from attribution.csv_rows import (
    BadImportError,
    BadRow,
    BadRows,
    Cells,
    Kind,
    Known,
    account_row,
    ip_row,
    number_row,
    read_cells,
    tenant_row,
)
from attribution.details import RefusedChangeError
from attribution.import_store import Asset
from attribution.installation_store import bootstrap_state

__all__ = ["BadImportError", "BadRow", "ImportReport", "Kind", "import_csv"]

_progress_rows: Final = 1000
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did: rows made, those of them that ended an older assignment, and rows that were so already."""

    kind: Kind
    made: int
    moved: int = 0
    unchanged: int = 0


def import_csv(
    connection: Connection,
    made_at: datetime,
    kind: Kind,
    lines: Iterable[str],
    progress: Progress = no_progress,
) -> ImportReport:
    """Import one file.

    Args:
        connection: its transaction must be rolled back when this raises.
        made_at: the instant of `changes_store.take_change_instant`, taken before in the same transaction.
        kind: what the file holds.
        lines: the file's lines; read once, not kept.
        progress: called now and then with how many more rows were read.

    Raises:
        BadImportError: rows are bad; each is told with its number, its value and the reason, and nothing was made.
    """
    known = Known(
        instant=made_at,
        own_times=bootstrap_state(connection) == "bootstrap",
        accounts=import_store.all_accounts(connection),
        tenants=import_store.all_tenants(connection),
    )
    bad = BadRows()
    cells = _watched(read_cells(kind, lines, known, bad), progress)
    match kind:
        case "accounts":
            return _import_accounts(connection, cells, known, bad)
        case "tenants":
            return _import_tenants(connection, cells, known, bad)
        case "numbers":
            import_store.stage_numbers(connection, _good(cells, number_row, known, bad))
            return _import_assignments(connection, kind, "number", made_at, bad)
        case "ips":
            import_store.stage_ips(connection, _good(cells, ip_row, known, bad))
            return _import_assignments(connection, kind, "network", made_at, bad)


def _import_accounts(
    connection: Connection, cells: Iterable[Cells], known: Known, bad: BadRows
) -> ImportReport:
    rows = list(_good(cells, account_row, known, bad))
    taken = set(known.accounts)
    for row, details, _ in rows:
        if details.code in taken:
            bad.note(row, details.code, f"account {details.code!r} exists already")
        taken.add(details.code)
    bad.refuse_any()
    import_store.add_accounts(connection, rows)
    return ImportReport("accounts", len(rows))


def _import_tenants(
    connection: Connection, cells: Iterable[Cells], known: Known, bad: BadRows
) -> ImportReport:
    rows = list(_good(cells, tenant_row, known, bad))
    taken = {(account_id, code.lower()) for account_id, code in known.tenants}
    for each in rows:
        key = each.account_id, each.code.lower()
        if key in taken:
            bad.note(
                each.row,
                each.code,
                f"Account ID {each.code!r} is used already in its account, perhaps in another case",
            )
        taken.add(key)
    bad.refuse_any()
    import_store.add_tenants(connection, rows)
    return ImportReport("tenants", len(rows))


def _import_assignments(
    connection: Connection, kind: Kind, asset: Asset, made_at: datetime, bad: BadRows
) -> ImportReport:
    for conflict in import_store.overlaps_within(connection, asset):
        bad.note(*conflict)
    for conflict in import_store.conflicts(connection, asset, made_at):
        bad.note(*conflict)
    if asset == "network":
        for conflict in import_store.foreign_overlaps(connection):
            bad.note(*conflict)
    bad.refuse_any()
    return ImportReport(kind, *import_store.write_assignments(connection, asset, made_at))


def _good(
    cells: Iterable[Cells], read: Callable[[Cells, Known], _R], known: Known, bad: BadRows
) -> Iterator[_R]:
    """The rows that can be read; the others are noted."""
    for each in cells:
        try:
            row = read(each, known)
        except RefusedChangeError as refusal:
            bad.note(each.row, ",".join(each.text.values()), str(refusal))
        else:
            yield row


def _watched(cells: Iterable[Cells], progress: Progress) -> Iterator[Cells]:
    read = 0
    for each in cells:
        yield each
        read += 1
        if read % _progress_rows == 0:
            progress(_progress_rows)
    progress(read % _progress_rows)
