r"""How rows are copied into Postgres, in one of two ways.

COPY in CSV whose quoting is JSON's, because orjson writes that fastest: for rows of any table. A row is a JSON array
without its brackets: text in double quotes with backslash escapes, `null` for null. Control characters reach the
database as their JSON escapes (`\t`, `\u0000`), so no text can break a line or a row.

COPY in Postgres's binary format: for rows that are made as schemas/binary.py does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from decimal import Decimal
from itertools import chain
from typing import Any, Final, cast

import numpy as np
import orjson
import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

_BINARY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_BINARY_TRAILER: Final = b"\xff\xff"


def copy_rows(connection: Connection, table: str, columns: Sequence[str], lines: Iterable[bytes]) -> None:
    """Append lines, made by `copy_line`, to a table; within the connection's transaction.

    Raises:
        DBAPIError: as SQLAlchemy's own statements do; `orig` is psycopg2's error.
    """
    body = b"\n".join(lines)
    if body:
        _copy(connection, table, columns, "csv, null 'null', escape '\\'", [body])


def copy_binary(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[bytes]) -> None:
    """Append rows in binary form to a table, each begun by `binary_row_start`; within the connection's transaction.

    Raises:
        DBAPIError: as SQLAlchemy's own statements do; `orig` is psycopg2's error.
    """
    _copy(connection, table, columns, "binary", chain((_BINARY_HEADER,), rows, (_BINARY_TRAILER,)))


def array_of(numbers: Iterable[int]) -> str:
    """Whole numbers as a parameter that is to be cast to an array: written at a tenth of what the driver takes for a list."""
    return "{" + ",".join(map(str, numbers.tolist() if isinstance(numbers, np.ndarray) else numbers)) + "}"


class _Reader:
    """Parts of a body, one at each read whatever its size: psycopg2 sends what it gets.

    Few and large, because each read waits for the interpreter's lock; but not the whole, which no cache would hold.
    """

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)

    def read(self, size: int = -1, /) -> bytes:  # noqa: ARG002 (the protocol of files)
        return next(self._parts, b"")


def _copy(
    connection: Connection, table: str, columns: Sequence[str], form: str, parts: Iterable[bytes]
) -> None:
    statement = f"copy {table} ({', '.join(columns)}) from stdin with (format {form})"
    with closing(connection.connection.cursor()) as cursor:  # psycopg2's own: SQLAlchemy has no COPY
        try:
            cast("psycopg2.extensions.cursor", cursor).copy_expert(statement, cast("Any", _Reader(parts)))
        except psycopg2.Error as error:
            raise DBAPIError.instance(statement, None, error, psycopg2.Error) from error


def copy_line(values: Iterable[object]) -> bytes:
    """One row: None, text, bool, int, Decimal, UUID, bytes, dates, aware times and addresses; no lists or dicts."""
    return orjson.dumps(tuple(values), default=_text)[1:-1]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
