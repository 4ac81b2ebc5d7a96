"""How millions of rows of whole numbers come out of Postgres: as columns, by COPY in its binary form.

Each row is the same number of eight-byte integers (a `timestamptz` is one too: microseconds since 2000, `infinity` the
largest), so numpy reads the bytes as they are, and no object is made for a row. The columns grow where they lie: memory
holds them once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Final, cast

import numpy as np
import psycopg2.extensions
from numpy.typing import NDArray
from sqlalchemy import Connection

_HEADER_BYTES: Final = 19  # signature, flags, no extension
_TRAILER_BYTES: Final = 2
_chunk_bytes_max: Final = 4 * 1024 * 1024
_growth_rows: Final = 1024 * 1024

Progress = Callable[[int], None]
"""Called now and then with how many rows or steps are done since the last call."""


def no_progress(_done: int) -> None:
    """Nobody watches."""


def read_columns(
    connection: Connection,
    query: str,
    parameters: Mapping[str, object],
    width: int,
    progress: Progress = no_progress,
) -> list[NDArray[np.int64]]:
    """The columns of a query all of whose `width` columns are `bigint` or `timestamptz`, none null.

    Args:
        connection: read within its transaction.
        query: with psycopg2's `%(name)s` for parameters, which become part of the text: COPY takes none.
        parameters: what to put in their places.
        width: how many columns the query has.
        progress: called with the number of rows of each chunk.
    """
    chunks = _Chunks(width, progress)
    with closing(connection.connection.cursor()) as plain:
        cursor = cast("psycopg2.extensions.cursor", plain)  # SQLAlchemy has no COPY
        text = cursor.mogrify(query, parameters).decode()
        cursor.copy_expert(f"copy ({text}) to stdout (format binary)", chunks)
    return chunks.columns()


class _Chunks:
    """What COPY writes to: takes bytes, keeps columns."""

    def __init__(self, width: int, progress: Progress) -> None:
        self._row = np.dtype([("fields", ">i2"), *_cells(width)])
        self._width = width
        self._progress = progress
        self._buffer = bytearray()
        self._skip = _HEADER_BYTES
        self._rows = 0
        self._columns = [np.empty(_growth_rows, np.int64) for _ in range(width)]

    def write(self, data: bytes) -> None:
        """Take some bytes of the stream; psycopg2 calls it once a row."""
        self._buffer += data
        if len(self._buffer) > _chunk_bytes_max:
            self._flush()

    def columns(self) -> list[NDArray[np.int64]]:
        """The columns of all rows."""
        del self._buffer[-_TRAILER_BYTES:]
        self._flush()
        for column in self._columns:
            column.resize(self._rows, refcheck=False)
        return self._columns

    def _flush(self) -> None:
        rows = (len(self._buffer) - self._skip) // self._row.itemsize
        end = self._skip + rows * self._row.itemsize
        table = np.frombuffer(bytes(self._buffer[self._skip : end]), dtype=self._row)
        if not np.all(table["fields"] == self._width):
            raise RuntimeError("COPY answered with rows of another width than asked for")
        for position, column in enumerate(self._columns):
            if self._rows + rows > len(column):
                column.resize(len(column) + max(rows, _growth_rows), refcheck=False)
            column[self._rows : self._rows + rows] = table[f"value{position}"]
        del self._buffer[:end]
        self._skip = 0
        self._rows += rows
        self._progress(rows)


def _cells(width: int) -> Sequence[tuple[str, str]]:
    each = [((f"length{position}", ">i4"), (f"value{position}", ">i8")) for position in range(width)]
    return [cell for pair in each for cell in pair]
