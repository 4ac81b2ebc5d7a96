"""Call records by column: how a batch of them is carried where one at a time would cost too much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from schemas.amounts import finer, millionths_each
from schemas.binary import Integers, microseconds_each, numbers
from schemas.network import Address
from schemas.records import CallRecord

Columns = TypeVar("Columns", bound=tuple[Any, ...])
"""A named tuple of columns of one length: lists, or arrays where there is reckoned with them."""


class CallColumns(NamedTuple):
    """Call records by column; each column is `CallRecord`'s field of that name, or of the plural.

    `sources`: `source_ip`. `names`: `x_tenant`, what the tenant header says. `started`, `answered`, `ended`: in microseconds
    since `schemas.binary.EPOCH`. `answered_seconds`, `costs`: in millionths. `NEVER` where the record has none.
    `finer`: what of an amount is less than a millionth (`schemas.amounts.finer`).
    """

    ids: Sequence[str]
    switches: Sequence[str]
    services: Sequence[str]
    directions: Sequence[str]
    call_ids: Sequence[str | None]
    from_numbers: Sequence[str | None]
    to_numbers: Sequence[str | None]
    sources: Sequence[Address | None]
    names: Sequence[str | None]
    started: Integers
    answered: Integers
    ended: Integers
    answered_seconds: Integers
    billed_seconds: Integers
    costs: Integers
    finer: Sequence[bytes]
    currencies: Sequence[str | None]

    @classmethod
    def of(cls, records: Sequence[CallRecord]) -> CallColumns:
        """The columns of some records, in their order."""
        return cls(
            [each.id for each in records],
            [each.switch for each in records],
            [each.service for each in records],
            [each.direction for each in records],
            [each.call_id for each in records],
            [each.from_number for each in records],
            [each.to_number for each in records],
            [each.source_ip for each in records],
            [each.x_tenant for each in records],
            microseconds_each([each.started_at for each in records]),
            microseconds_each([each.answered_at for each in records]),
            microseconds_each([each.ended_at for each in records]),
            millionths_each([each.answered_seconds for each in records]),
            numbers([each.billed_seconds for each in records]),
            millionths_each([each.cost for each in records]),
            [finer(each.answered_seconds, each.cost) for each in records],
            [each.currency for each in records],
        )

    @property
    def records(self) -> int:
        """How many there are."""
        return len(self.ids)


def rows_at(columns: Columns, places: Sequence[int] | Integers) -> Columns:
    """Some rows of columns, in the order of their places."""
    numbers = np.asarray(places, dtype=np.int64)
    each = numbers.tolist()
    return _made(
        columns,
        [
            column[numbers] if isinstance(column, np.ndarray) else [column[place] for place in each]
            for column in columns
        ],
    )


def rows_joined(parts: Sequence[Columns]) -> Columns:
    """All rows of some columns, one part behind the other; there is one at least."""
    if len(parts) == 1:
        return parts[0]
    return _made(
        parts[0],
        [
            np.concatenate(columns)
            if isinstance(columns[0], np.ndarray)
            else list(chain.from_iterable(columns))
            for columns in zip(*parts, strict=True)
        ],
    )


def _made(like: Columns, columns: Iterable[Any]) -> Columns:
    made: Columns = cast("Any", like)._make(columns)
    return made
