"""Whose number is it: millions of number assignments as sorted columns, 48 bytes each.

The columns are sorted by number and then by `made_at`, so a look-up is a binary search. Numbers that changed since
the columns were made lie in an overlay with their whole history; it is merged into new columns, without a sort, when
it has grown (a refresh copies it).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attribution.assets import NumberAssignment, end_microseconds, to_end, to_instant, to_microseconds

Integers = NDArray[np.int64]
overlay_numbers_max: Final = 100_000
assignments_kept_max: Final = 65_536
_E164: Final = re.compile(r"\+[1-9]\d{6,14}", re.ASCII)
_NO_TENANT: Final = 0
_NOTHING_CHANGED: Final[Mapping[int, tuple[NumberAssignment, ...]]] = MappingProxyType({})


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
                _digits(each.number),
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

    def _is_sorted(self) -> bool:
        ahead, behind = self.numbers[1:], self.numbers[:-1]
        return bool(np.all((ahead > behind) | ((ahead == behind) & (self.made[1:] >= self.made[:-1]))))


class NumberTable:
    """An immutable table of number assignments; `changed` makes a new one that shares the columns."""

    __slots__ = ("_assignments", "_cells", "_columns", "_overlay", "_search")

    def __init__(
        self,
        columns: NumberColumns,
        overlay: Mapping[int, tuple[NumberAssignment, ...]] = _NOTHING_CHANGED,
    ) -> None:
        """Wrap columns that are sorted (`NumberColumns.sort`), and what changed since."""
        self._columns = columns
        self._overlay = overlay
        self._search = columns.numbers.searchsorted
        # memoryviews give plain ints, which compare faster one by one than numpy's
        self._cells = tuple([memoryview(column.data) for column in columns.each()])
        self._assignments: dict[
            int, NumberAssignment
        ] = {}  # made lately, by row: busy numbers are asked for often

    def in_force(self, number: str, at: int) -> NumberAssignment | None:
        """The assignment of an E.164 number at an instant in microseconds; None for anything that is not E.164."""
        if _E164.fullmatch(number) is None:
            return None
        digits = int(number)
        changed = self._overlay.get(digits)
        if changed is not None:
            return _latest_in_force(changed, at)
        rows = self._rows(digits)
        if not rows:
            return None
        made, ended = self._cells[1:3]
        row = bisect_right(made, at, rows.start, rows.stop) - 1
        return self._assignment(row) if row >= rows.start and at < ended[row] else None

    def history(self, number: str) -> tuple[NumberAssignment, ...]:
        """All assignments of an E.164 number, oldest first."""
        return self._history(_digits(number))

    def changed(self, assignments: Iterable[NumberAssignment]) -> NumberTable:
        """The table with assignments made or ended; one with an id that is there replaces it."""
        by_number: dict[int, list[NumberAssignment]] = defaultdict(list)
        for each in assignments:
            by_number[_digits(each.number)].append(each)
        if not by_number:
            return self
        overlay = dict(self._overlay)
        for digits, changed in by_number.items():
            known = {each.id: each for each in (*self._history(digits), *changed)}
            overlay[digits] = tuple(sorted(known.values(), key=lambda each: each.made_at))
        table = NumberTable(self._columns, overlay)
        return table._merged() if len(overlay) > overlay_numbers_max else table

    def _history(self, digits: int) -> tuple[NumberAssignment, ...]:
        changed = self._overlay.get(digits)
        if changed is not None:
            return changed
        return tuple([self._assignment(row) for row in self._rows(digits)])

    def _rows(self, digits: int) -> range:
        """Where the number's assignments stand in the columns."""
        numbers = self._cells[0]
        first, end = int(self._search(digits)), len(numbers)
        if first == end or numbers[first] != digits:
            return range(0)
        if first + 1 == end or numbers[first + 1] != digits:  # most numbers were assigned once
            return range(first, first + 1)
        return range(first, int(self._search(digits, "right")))

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

    def _merged(self) -> NumberTable:
        """The same table with its overlay in the columns: one pass over each, no sort of the whole."""
        changed = np.fromiter(self._overlay, dtype=np.int64, count=len(self._overlay))
        changed.sort()
        nearest = np.minimum(changed.searchsorted(self._columns.numbers), len(changed) - 1)
        kept = changed[nearest] != self._columns.numbers
        fresh = NumberColumns.of([each for history in self._overlay.values() for each in history]).sort()
        places = self._columns.numbers[kept].searchsorted(fresh.numbers)
        pairs = zip(self._columns.each(), fresh.each(), strict=True)
        return NumberTable(NumberColumns(*(np.insert(old[kept], places, new) for old, new in pairs)))


def _latest_in_force(history: Sequence[NumberAssignment], at: int) -> NumberAssignment | None:
    for each in reversed(history):
        if to_microseconds(each.made_at) <= at:
            return each if at < end_microseconds(each.ended_at) else None
    return None


def _digits(number: str) -> int:
    return int(number.removeprefix("+"))
