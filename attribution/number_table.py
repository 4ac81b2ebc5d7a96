"""Whose number is it: millions of number assignments as sorted columns, 48 bytes each.

The columns are sorted by number and then by `made_at`, so a look-up is a binary search. Numbers that changed since
the columns were made lie in an overlay with their whole history; it is merged into new columns, without a sort, when
it has grown (a refresh copies it).

A batch is searched as a whole: first which block of rows each number must lie in, then all blocks at once, step by step,
so that the waits for memory overlap.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from attribution.assets import (
    NumberAssignment,
    end_microseconds,
    to_end,
    to_instant,
    to_microseconds,
)
from attribution.spells import Spell, spell_in

Integers = NDArray[np.int64]
overlay_numbers_min: Final = 1_000
overlay_share: Final = 0.01
assignments_kept_max: Final = 65_536
block_rows: Final = (
    256  # a power of two; few enough blocks that their first numbers stay in a processor's cache
)
_E164: Final = re.compile(r"\+[1-9]\d{6,14}", re.ASCII)
_ALL_E164: Final = re.compile(r"\+[1-9]\d{6,14}(?: \+[1-9]\d{6,14})*", re.ASCII)
_NO_TENANT: Final = 0
_History = tuple[Spell[NumberAssignment], ...]  # oldest first
_NOTHING_CHANGED: Final[Mapping[int, _History]] = MappingProxyType({})


class NumberOwner(msgspec.Struct, frozen=True, gc=False):
    """Whose a number is: what attribution needs of an assignment, under the same names, and quickly made."""

    id: int
    account_id: int
    tenant_id: int | None


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

    __slots__ = ("_assignments", "_blocks", "_cells", "_columns", "_overlay", "_search")

    def __init__(
        self,
        columns: NumberColumns,
        overlay: Mapping[int, _History] = _NOTHING_CHANGED,
    ) -> None:
        """Wrap columns that are sorted (`NumberColumns.sort`), and what changed since."""
        self._columns = columns
        self._overlay = overlay
        self._blocks = columns.numbers[::block_rows].copy()
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
            return spell_in(changed, at)[2]
        rows = self._rows(digits)
        if not rows:
            return None
        made, ended = self._cells[1:3]
        row = bisect_right(made, at, rows.start, rows.stop) - 1
        return self._assignment(row) if row >= rows.start and at < ended[row] else None

    def in_force_each(self, numbers: Sequence[str], at: Sequence[datetime]) -> list[NumberOwner | None]:
        """Whose each number is at its instant, as `in_force` says.

        All at once by the newest assignment of each number; one by one where an older one may have been in force, or
        the number changed lately.

        Raises:
            ValueError: there are not as many instants as numbers.
        """
        if len(numbers) != len(at):
            raise ValueError(f"{len(numbers)} numbers cannot be asked for at {len(at)} instants")
        if not numbers:
            return []
        digits = _digits_each(numbers)
        owners, older = self._newest_owners(digits, at)
        if self._overlay:
            older += [each for each, key in enumerate(digits.tolist()) if key in self._overlay]
        for each in older:
            assignment = self.in_force(numbers[each], to_microseconds(at[each]))
            owners[each] = None if assignment is None else _owner(assignment)
        return owners

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
            spells = [
                (to_microseconds(each.made_at), end_microseconds(each.ended_at), each)
                for each in known.values()
            ]
            overlay[digits] = tuple(sorted(spells, key=lambda spell: spell[0]))
        table = NumberTable(self._columns, overlay)
        return table._merged() if len(overlay) > _overlay_max(len(self._columns.numbers)) else table

    def _newest_owners(
        self, digits: Integers, at: Sequence[datetime]
    ) -> tuple[list[NumberOwner | None], list[int]]:
        """Whose each number is by its newest row, and the positions of those asked for before that was made."""
        if not self._blocks.size:
            return [None] * len(digits), []
        rows = self._newest_rows(digits)
        number, made, ended, *owner = [column.take(rows) for column in self._columns.each()]
        known = number == digits
        holds = known & (made <= to_microseconds(min(at))) & (to_microseconds(max(at)) < ended)
        unsure = np.flatnonzero(known & ~holds)
        instants = np.fromiter([to_microseconds(at[each]) for each in unsure.tolist()], np.int64, len(unsure))
        holds[unsure] = (made[unsure] <= instants) & (instants < ended[unsure])
        facts = zip(holds.tolist(), *[each.tolist() for each in owner], strict=True)
        owners = [
            NumberOwner(id_, account, tenant or None) if held else None
            for held, id_, account, tenant in facts
        ]
        return owners, unsure[instants < made[unsure]].tolist()

    def _newest_rows(self, digits: Integers) -> Integers:
        """The last row of each number; of another number where it is not there."""
        rows: Integers = np.maximum(self._blocks.searchsorted(digits, "right") - 1, 0) * block_rows
        step = block_rows
        while step := step // 2:
            rows += step * (self._columns.numbers.take(rows + step, mode="clip") <= digits)
        rows.clip(max=len(self._columns.numbers) - 1, out=rows)
        return rows

    def _history(self, digits: int) -> tuple[NumberAssignment, ...]:
        changed = self._overlay.get(digits)
        if changed is not None:
            return tuple([spell[2] for spell in changed])
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
        numbers = self._columns.numbers
        changed = np.fromiter(self._overlay, dtype=np.int64, count=len(self._overlay))
        edges = np.zeros(
            len(numbers) + 1, dtype=np.int8
        )  # 1 where a changed number's rows begin, -1 where they end
        np.add.at(edges, numbers.searchsorted(changed), 1)
        np.add.at(edges, numbers.searchsorted(changed, "right"), -1)
        kept = np.cumsum(edges[:-1], dtype=np.int8) == 0
        fresh = NumberColumns.of([spell[2] for history in self._overlay.values() for spell in history]).sort()
        places = numbers[kept].searchsorted(fresh.numbers)
        pairs = zip(self._columns.each(), fresh.each(), strict=True)
        return NumberTable(NumberColumns(*(np.insert(old[kept], places, new) for old, new in pairs)))


def _owner(assignment: NumberAssignment) -> NumberOwner:
    return NumberOwner(assignment.id, assignment.account_id, assignment.tenant_id)


def _overlay_max(rows: int) -> int:
    """How many changed numbers lie beside so many rows before a merge: their share keeps merges cheap by the change."""
    return max(overlay_numbers_min, int(rows * overlay_share))


def _digits_each(numbers: Sequence[str]) -> Integers:
    """The digits of E.164 numbers; 0 for anything else."""
    joined = " ".join(numbers)
    if _ALL_E164.fullmatch(joined) is None or joined.count(" ") != len(numbers) - 1:
        joined = " ".join([number if _E164.fullmatch(number) else "0" for number in numbers])
    return np.fromstring(joined, dtype=np.int64, sep=" ")


def _digits(number: str) -> int:
    return int(number.removeprefix("+"))
