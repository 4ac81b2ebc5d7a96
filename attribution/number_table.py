"""Whose number is it: sorted columns, and beside them the numbers that changed lately.

A number that changed since the columns were made lies, with its whole history, in small columns of its own, and is
asked for there. A refresh makes only these anew; when they have grown they are woven into the large ones, in one pass
and without a sort.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from attribution.assets import NumberAssignment
from attribution.number_columns import NumberColumns, NumberOwners, SortedNumbers
from schemas.binary import NEVER, Integers

recent_rows_min: Final = 1_000
recent_share: Final = 0.05
_E164: Final = re.compile(r"\+[1-9]\d{6,14}", re.ASCII)
_ALL_E164: Final = re.compile(r"\+[1-9]\d{6,14}(?: \+[1-9]\d{6,14})*", re.ASCII)


class NumberTable:
    """An immutable table of number assignments; `changed` makes a new one that shares the columns."""

    __slots__ = ("_recent", "_settled")

    def __init__(self, settled: SortedNumbers, recent: SortedNumbers | None = None) -> None:
        self._settled = settled
        self._recent = recent or SortedNumbers(NumberColumns.of(()))

    @classmethod
    def of(cls, columns: NumberColumns) -> NumberTable:
        """The table of columns that are sorted (`NumberColumns.sort`)."""
        return cls(SortedNumbers(columns))

    def in_force(self, number: str, at: int) -> NumberAssignment | None:
        """The assignment of an E.164 number at an instant in microseconds; None for anything that is not E.164."""
        if _E164.fullmatch(number) is None:
            return None
        digits = int(number)
        for table in (self._recent, self._settled):
            rows = table.rows(digits)
            if rows:
                return table.in_force(rows, at)
        return None

    def in_force_each(self, numbers: Sequence[str], at: Integers) -> NumberOwners:
        """Whose each number is at its instant in microseconds, as `in_force` says.

        All at once by the newest assignment of each number; one by one where an older one may have been in force.

        Raises:
            ValueError: there are not as many instants as numbers.
        """
        if len(numbers) != len(at):
            raise ValueError(f"{len(numbers)} numbers cannot be asked for at {len(at)} instants")
        digits = _digits_each(numbers)
        owners, older = self._settled.newest_owners(digits, at)
        changed = np.flatnonzero(self._recent.known(digits))
        if changed.size:
            lately, older_there = self._recent.newest_owners(digits[changed], at[changed])
            for column, found in zip(owners, lately, strict=True):
                column[changed] = found
            older = np.append(older, changed[older_there])
        for each in older.tolist():
            assignment = self.in_force(numbers[each], int(at[each]))
            for column, fact in zip(owners, _owner(assignment), strict=True):
                column[each] = fact
        return owners

    def changed(self, assignments: Iterable[NumberAssignment]) -> NumberTable:
        """The table with assignments made or ended; one with an id that is there replaces it."""
        return self.changed_by(NumberColumns.of(tuple(assignments)))

    def changed_by(self, changes: NumberColumns) -> NumberTable:
        """`changed` by columns, in any order."""
        if not changes.numbers.size:
            return self
        numbers = np.unique(changes.numbers)
        settled, lately = (each.columns.of_numbers(numbers) for each in (self._settled, self._recent))
        recent = self._recent.columns.replaced(settled.updated(lately).updated(changes))
        if len(recent.numbers) > _recent_max(len(self._settled)):
            return NumberTable.of(self._settled.columns.replaced(recent))
        return NumberTable(self._settled, SortedNumbers(recent))


def _owner(assignment: NumberAssignment | None) -> tuple[int, int, int]:
    """Whose a number is, as `NumberOwners` has it."""
    if assignment is None:
        return NEVER, NEVER, NEVER
    tenant_id = NEVER if assignment.tenant_id is None else assignment.tenant_id
    return assignment.id, assignment.account_id, tenant_id


def _recent_max(rows: int) -> int:
    """How many rows lie beside so many others before they are woven in: their share keeps that cheap by the change."""
    return max(recent_rows_min, int(rows * recent_share))


def _digits_each(numbers: Sequence[str]) -> Integers:
    """The digits of E.164 numbers; 0 for anything else."""
    if not numbers:
        return np.zeros(0, dtype=np.int64)
    joined = " ".join(numbers)
    if _ALL_E164.fullmatch(joined) is None or joined.count(" ") != len(numbers) - 1:
        joined = " ".join([number if _E164.fullmatch(number) else "0" for number in numbers])
    return np.fromstring(joined, dtype=np.int64, sep=" ")
