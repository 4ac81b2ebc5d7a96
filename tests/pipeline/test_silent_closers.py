"""A closer that stands still in the middle of a COPY, where no timeout of the server's reaches it, stops no month."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from pipeline.closer import Waiting, close_month, closer_round
from rollup import close_store
from rollup.months_store import BlockerKind
from schemas.bulk import copy_rows
from schemas.periods import Period
from tests.pipeline.program import SETTINGS, NothingBeyond
from tests.pipeline.test_close_crashes import past, told

__all__ = ["past"]


class Frozen:
    """A process that copies: it stands still where a row would follow, until it is thawed."""

    def __init__(self, copy_rows: Callable[..., None]) -> None:
        self.reached, self.thaw = threading.Event(), threading.Event()
        self._copy_rows = copy_rows

    def copy_rows(
        self, connection: Connection, table: str, columns: Iterable[str], rows: Iterable[bytes]
    ) -> None:
        if self.reached.is_set():  # whoever comes after it copies as ever
            self._copy_rows(connection, table, columns, rows)
            return
        self.reached.set()
        cursor: Any = connection.connection.cursor()
        cursor.copy_expert(f"copy {table} from stdin", self)

    def read(self, _size: int) -> bytes:
        self.thaw.wait(60)
        return b""


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Frozen:
    found = Frozen(copy_rows)
    monkeypatch.setattr(close_store, "copy_rows", found.copy_rows)
    monkeypatch.setattr(close_store, "frozen_seconds_max", 1)
    return found


def freeze(pool: ThreadPoolExecutor, frozen: Frozen, database: Engine, month: Period) -> Future[Any]:
    closing = pool.submit(close_month, database, SETTINGS, NothingBeyond(), month)
    assert frozen.reached.wait(30)
    return closing


def test_another_closer_ends_it_and_closes_the_month(database: Engine, past: Period, frozen: Frozen) -> None:
    with ThreadPoolExecutor(1) as pool:
        closing = freeze(pool, frozen, database, past)
        try:
            found = close_month(database, SETTINGS, NothingBeyond(), past)  # as a person would
            assert isinstance(found, Waiting)
            assert [each.kind for each in found.blockers] == [BlockerKind.CLOSING]
            assert not closer_round(database, SETTINGS, NothingBeyond())  # waits as long, then ends it
            assert closer_round(database, SETTINGS, NothingBeyond())
        finally:
            frozen.thaw.set()
        with pytest.raises(DBAPIError):
            closing.result(30)
    assert len(told(database, past)) == 5
