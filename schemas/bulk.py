"""How rows are copied into Postgres: COPY's text format, where an empty field is null.

No stored text may be empty therefore; the wire schema and the tables see to it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import closing
from decimal import Decimal
from typing import cast
from uuid import UUID

import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError


def copy_rows(connection: Connection, table: str, columns: Sequence[str], lines: Iterable[str]) -> None:
    """Append lines, made by `copy_line`, to a table; within the connection's transaction.

    Raises:
        DBAPIError: as SQLAlchemy's own statements do; `orig` is psycopg2's error.
    """
    body = "\n".join(lines)
    if not body:
        return
    statement = f"copy {table} ({', '.join(columns)}) from stdin with (format text, null '')"
    with closing(connection.connection.cursor()) as cursor:  # psycopg2's own: SQLAlchemy has no COPY
        try:
            cast("psycopg2.extensions.cursor", cursor).copy_expert(statement, io.StringIO(body))
        except psycopg2.Error as error:
            raise DBAPIError.instance(statement, None, error, psycopg2.Error) from error


def copy_line(values: Iterable[object]) -> str:
    """One line of COPY's text format: None, text, bool, int, Decimal, UUID, bytes, dates and addresses."""
    return "\t".join([_field(value) for value in values])


def _field(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value if "\\" not in value and value.isprintable() else _escaped(value)
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, bytes):
        return f"\\\\x{value.hex()}"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _escaped(value: str) -> str:
    for plain, escape in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(plain, escape)
    return value.replace("\x00", "\ufffd")
