"""One change in one transaction, and a directory loaded behind its fence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, Engine

from attribution.changes_store import make_account, make_tenant, take_change_instant
from attribution.directory import Directory
from attribution.directory_store import load_directory, refresh_directory, take_fence
from tests.attribution.worlds import account_details, tenant_details


def change(engine: Engine, make: Callable[[Connection, datetime], object]) -> datetime:
    """Make a change in a transaction of its own; returns its instant."""
    with engine.begin() as connection:
        made_at = take_change_instant(connection)
        make(connection, made_at)
    return made_at


def loaded(engine: Engine, before: Directory | None = None) -> Directory:
    """The directory as of now: loaded, or refreshed from one before."""
    with engine.begin() as connection:
        as_of = take_fence(connection)
    with engine.connect() as connection:
        if before is None:
            return load_directory(connection, as_of)
        return refresh_directory(connection, before, as_of)


def make_accounts(connection: Connection, made_at: datetime) -> None:
    make_account(connection, made_at, account_details("reseller"))
    make_account(connection, made_at, account_details("rival"))
    make_tenant(connection, made_at, "reseller", "big", tenant_details("Big"))
    make_tenant(connection, made_at, "reseller", "small", tenant_details("Small"))
    make_tenant(connection, made_at, "rival", "other", tenant_details("Other"))
