"""Millions of number assignments as sorted columns, 48 bytes each, and the search in them.

The columns are sorted by number and then by `made_at`. A batch is searched as a whole: first which block of rows each
number must lie in, then all blocks at once, step by step, so that the waits for memory overlap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attribution.assets import (
    NumberAssignment,
    end_microseconds,
    to_end,
    to_instant,
    to_microseconds,
)
from schemas.binary import NEVER, Integers

assignments_kept_max: Final = 65_536
block_rows: Final = (
    256  # a power of two; few enough blocks that their first numbers stay in a processor's cache
)
_NO_TENANT: Final = 0


class NumberOwners(NamedTuple):
    """Whose each number is, by its assignment's id: `NEVER` where it is nobody's, or no tenant's."""

    ids: Integers
    account_ids: Integers
    tenant_ids: Integers


@dataclass(frozen=True, slots=True)
class NumberColumns:
    """Number assignments, one per position: E.164 digits, microseconds since `EPOCH`, ids; tenant 0 is none."""

    numbers: Integers
    made: Integers
    ended: Integers
    ids: Integers
    accounts: Integers
    tenants: Integers

    @classmethod
    def of(cls, assignments: Sequence[NumberAssignment]) -> NumberColumns:
        """The columns of some assignments, in their order."""
        rows = [
            (
                int(each.number.removeprefix("+")),
                to_microseconds(each.made_at),
                end_microseconds(each.ended_at),
                each.id,
                each.account_id,
                each.tenant_id or _NO_TENANT,
            )
            for each in assignments
        ]
        table = np.array(rows, dtype=np.int64).reshape(-1, len(fields(cls)))
        return cls(*(np.ascontiguousarray(column) for column in table.T))

    def sort(self) -> NumberColumns:
        """Put the assignments in order of number, then of `made_at`; in place, because there may be millions."""
        if not self._is_sorted():
            order = np.lexsort((self.made, self.numbers))
            for column in self.each():
                column[:] = column[order]
        return self

    def each(self) -> tuple[Integers, ...]:
        """The columns, in the order of their fields."""
        return (self.numbers, self.made, self.ended, self.ids, self.accounts, self.tenants)

    def of_numbers(self, numbers: Integers) -> NumberColumns:
        """The whole histories of some numbers, out of sorted columns; `numbers` in order, each once."""
        first = self.numbers.searchsorted(numbers)
        lengths = self.numbers.searchsorted(numbers, "right") - first
        skipped = np.cumsum(lengths) - lengths
        rows = np.repeat(first - skipped, lengths) + np.arange(lengths.sum())
        return NumberColumns(*(column.take(rows) for column in self.each()))

    def updated(self, changes: NumberColumns) -> NumberColumns:
        """These and the changed assignments, sorted; a changed one replaces the one with its id."""
        pairs = zip(changes.each(), self.each(), strict=True)
        both = NumberColumns(*(np.concatenate(pair) for pair in pairs))
        rows = np.unique(both.ids, return_index=True)[1]  # the first of each id
        return NumberColumns(*(column.take(rows) for column in both.each())).sort()

    def replaced(self, fresh: NumberColumns) -> NumberColumns:
        """These with the histories of some numbers as they are in `fresh`, both sorted: one pass, no sort."""
        kept = self._rows_without(fresh.numbers)
        places = self.numbers.take(kept).searchsorted(fresh.numbers) + np.arange(len(fresh.numbers))
        order = np.empty(len(kept) + len(fresh.numbers), dtype=np.int64)
        old = np.ones(len(order), dtype=np.bool_)
        old[places] = False
        order[places] = 0
        order[old] = kept
        return NumberColumns(
            *(_woven(*pair, order, places) for pair in zip(self.each(), fresh.each(), strict=True))
        )

    def _rows_without(self, numbers: Integers) -> Integers:
        """The rows of all other numbers."""
        edges = np.zeros(
            len(self.numbers) + 1, dtype=np.int8
        )  # 1 where a number's rows begin, -1 where they end
        changed = np.unique(numbers)
        np.add.at(edges, self.numbers.searchsorted(changed), 1)
        np.add.at(edges, self.numbers.searchsorted(changed, "right"), -1)
        return np.flatnonzero(np.cumsum(edges[:-1], dtype=np.int8) == 0)

    def _is_sorted(self) -> bool:
        ahead, behind = self.numbers[1:], self.numbers[:-1]
        return bool(np.all((ahead > behind) | ((ahead == behind) & (self.made[1:] >= self.made[:-1]))))


class SortedNumbers:
    """Sorted columns and what makes looking into them quick; they never change."""

    __slots__ = ("_assignments", "_blocks", "_cells", "_search", "columns")

    def __init__(self, columns: NumberColumns) -> None:
        """Wrap columns that are sorted (`NumberColumns.sort`)."""
        self.columns = columns
        self._blocks = columns.numbers[::block_rows].copy()
        self._search = columns.numbers.searchsorted
        # memoryviews give plain ints, which compare faster one by one than numpy's
        self._cells = tuple([memoryview(column.data) for column in columns.each()])
        self._assignments: dict[
            int, NumberAssignment
        ] = {}  # made lately, by row: busy numbers are asked for often

    def __len__(self) -> int:
        """How many assignments there are."""
        return len(self.columns.numbers)

    def rows(self, digits: int) -> range:
        """Where the number's assignments stand in the columns."""
        numbers = self._cells[0]
        first, end = int(self._search(digits)), len(numbers)
        if first == end or numbers[first] != digits:
            return range(0)
        if first + 1 == end or numbers[first + 1] != digits:  # most numbers were assigned once
            return range(first, first + 1)
        return range(first, int(self._search(digits, "right")))

    def in_force(self, rows: range, at: int) -> NumberAssignment | None:
        """The assignment among a number's rows that is in force at an instant in microseconds."""
        made, ended = self._cells[1:3]
        row = bisect_right(made, at, rows.start, rows.stop) - 1
        return self._assignment(row) if row >= rows.start and at < ended[row] else None

    def known(self, digits: Integers) -> NDArray[np.bool_]:
        """Which of some numbers have an assignment here, whenever."""
        if not len(self):
            return np.zeros(len(digits), dtype=np.bool_)
        found: NDArray[np.bool_] = self.columns.numbers.take(self._newest_rows(digits)) == digits
        return found

    def newest_owners(self, digits: Integers, at: Integers) -> tuple[NumberOwners, Integers]:
        """Whose each number is by its newest row, and the positions of those asked for before that was made."""
        if not len(self):
            return NumberOwners(*np.full((3, len(digits)), NEVER)), np.arange(0)
        rows = self._newest_rows(digits)
        number, made, ended, ids, accounts, tenants = [column.take(rows) for column in self.columns.each()]
        known = number == digits
        holds = known & (made <= at) & (at < ended)
        owners = NumberOwners(
            np.where(holds, ids, NEVER),
            np.where(holds, accounts, NEVER),
            np.where(holds & (tenants != _NO_TENANT), tenants, NEVER),
        )
        return owners, np.flatnonzero(known & (at < made))

    def _newest_rows(self, digits: Integers) -> Integers:
        """The last row of each number; of another number where it is not there."""
        rows: Integers = np.maximum(self._blocks.searchsorted(digits, "right") - 1, 0) * block_rows
        step = block_rows
        while step := step // 2:
            rows += step * (self.columns.numbers.take(rows + step, mode="clip") <= digits)
        rows.clip(max=len(self) - 1, out=rows)
        return rows

    def _assignment(self, row: int) -> NumberAssignment:
        known = self._assignments.get(row)
        if known is not None:
            return known
        number, made, ended, id_, account, tenant = [cells[row] for cells in self._cells]
        assignment = NumberAssignment(
            id_, f"+{number}", account, tenant or None, to_instant(made), to_end(ended)
        )
        if len(self._assignments) >= assignments_kept_max:
            self._assignments.clear()
        self._assignments[row] = assignment
        return assignment


def _woven(old: Integers, new: Integers, order: Integers, places: Integers) -> Integers:
    """A column with old rows in an order, and new ones at their places."""
    column: Integers = old.take(order) if old.size else np.zeros(len(order), dtype=np.int64)
    column[places] = new
    return column
