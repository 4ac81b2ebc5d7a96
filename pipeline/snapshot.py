"""The directory and the tariffs as a worker holds them: loaded once, refreshed behind the fence (A7)."""

from __future__ import annotations

from threading import Lock

from sqlalchemy import Connection, Engine, text

from attribution import directory_store
from pipeline.prepare import Snapshot
from rollup.tariff_store import load_tariffs
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
            directory = (
                directory_store.load_directory(connection, as_of)
                if before is None
                else directory_store.refresh_directory(connection, before.directory, as_of)
            )
            terms = {
                account.id: AccountTerms(
                    account_id=account.id,
                    currency=account.currency,
                    home_country=account.home_country,
                    domestic_regions=account.domestic_regions,
                )
                for account in directory.accounts()
            }
            return Snapshot(directory, load_tariffs(connection, as_of), terms, _oldest_period(connection))


def _oldest_period(connection: Connection) -> Period:
    oldest = connection.execute(text("select min(period) from periods")).scalar_one_or_none()
    if oldest is None:
        raise RuntimeError("no month exists: run `tenant-billing bootstrap finish` first")
    return Period.of(oldest)
