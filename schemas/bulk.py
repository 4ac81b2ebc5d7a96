r"""How rows are copied into Postgres: COPY reads CSV whose quoting is JSON's, because orjson writes that fastest.

A row is a JSON array without its brackets: text in double quotes with backslash escapes, `null` for null. Control
characters reach the database as their JSON escapes (`\t`, `\u0000`), so no text can break a line or a row.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import closing
from decimal import Decimal
from typing import cast

import orjson
import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError


def copy_rows(connection: Connection, table: str, columns: Sequence[str], lines: Iterable[bytes]) -> None:
    """Append lines, made by `copy_line`, to a table; within the connection's transaction.

    Raises:
        DBAPIError: as SQLAlchemy's own statements do; `orig` is psycopg2's error.
    """
    body = b"\n".join(lines)
    if not body:
        return
    statement = f"copy {table} ({', '.join(columns)}) from stdin with (format csv, null 'null', escape '\\')"
    with closing(connection.connection.cursor()) as cursor:  # psycopg2's own: SQLAlchemy has no COPY
        try:
            # in one piece: each further read would wait for the interpreter's lock while others compute
            cast("psycopg2.extensions.cursor", cursor).copy_expert(statement, io.BytesIO(body), len(body) + 1)
        except psycopg2.Error as error:
            raise DBAPIError.instance(statement, None, error, psycopg2.Error) from error


def copy_line(values: Iterable[object]) -> bytes:
    """One row: None, text, bool, int, Decimal, UUID, bytes, dates, aware times and addresses; no lists or dicts."""
    return orjson.dumps(tuple(values), default=_text)[1:-1]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
