"""The directory and the tariffs as a worker holds them: loaded once, refreshed behind the fence (A7)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from threading import Lock

from sqlalchemy import Connection, Engine, text

from attribution import directory_store
from attribution.directory import Directory
from pipeline.prepare import Snapshot
from rollup.tariff_store import load_tariffs
from rollup.tariffs import Tariffs
from rollup.terms import AccountTerms
from schemas.periods import Period


class Snapshots:
    """The current snapshot; `refresh` replaces it, readers keep the one they began with."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._current = self._load(None)

    @property
    def current(self) -> Snapshot:
        """The latest snapshot."""
        return self._current

    def refresh(self) -> Snapshot:
        """Take a new fence, read what changed since the last one, and return the new snapshot."""
        with self._lock:
            self._current = self._load(self._current)
            return self._current

    def _load(self, before: Snapshot | None) -> Snapshot:
        with self._engine.begin() as connection:
            as_of = directory_store.take_fence(connection)
        with self._engine.connect() as connection:
            if before is None:
                directory = directory_store.load_directory(connection, as_of)
            else:
                directory = directory_store.refresh_directory(connection, before.directory, as_of)
            return Snapshot(
                directory,
                _tariffs(connection, before, as_of),
                _terms(directory, before.terms if before else {}),
                _oldest_period(connection),
            )


def _terms(directory: Directory, known: Mapping[int, AccountTerms]) -> Mapping[int, AccountTerms]:
    """Every account's terms; an account never changes, so those known stay."""
    if len(known) == len(directory.accounts()):
        return known
    return {
        account.id: AccountTerms(
            account_id=account.id,
            currency=account.currency,
            home_country=account.home_country,
            domestic_regions=account.domestic_regions,
        )
        for account in directory.accounts()
    }


def _tariffs(connection: Connection, before: Snapshot | None, as_of: datetime) -> Tariffs:
    """Every tariff made up to a fence; read only where one was made since the snapshot before."""
    if before is not None:
        query = "select exists (select from tariffs where made_at > :after and made_at <= :as_of)"
        span = {"after": before.as_of, "as_of": as_of}
        if not connection.execute(text(query), span).scalar_one():
            return before.tariffs
    return load_tariffs(connection, as_of)


def _oldest_period(connection: Connection) -> Period:
    oldest = connection.execute(text("select min(period) from periods")).scalar_one_or_none()
    if oldest is None:
        raise RuntimeError("no month exists: run `tenant-billing bootstrap finish` first")
    return Period.of(oldest)
