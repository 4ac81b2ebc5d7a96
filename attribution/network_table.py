"""Whose address is it: network assignments by longest prefix among those in force at the instant (A3).

One map per IP version and prefix length, asked from the longest length down. A longer prefix that was released, or
made later, does not hide a shorter one that is in force.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attribution.assets import FOREVER, IpAssignment, end_microseconds, to_microseconds
from attribution.spells import Spell, Spells, spell_in
from schemas.binary import Integers
from schemas.network import Address, IpAddress, Network, parsed

_History = tuple[Spell[IpAssignment], ...]  # oldest first
_Histories = Mapping[int, _History]  # by the bits of the prefix
_BITS: Final = {4: 32, 6: 128}


class NetworkTable:
    """An immutable table of network assignments; `changed` makes a new one that shares what did not change."""

    __slots__ = ("_by_length", "_lengths", "_spells")

    def __init__(self, by_length: Mapping[tuple[int, int], _Histories] | None = None) -> None:
        """Wrap histories by IP version and prefix length; empty without any."""
        self._by_length = by_length or {}
        self._lengths = {
            version: [
                (bits - length, self._by_length[version, length])
                for length in sorted((each for of, each in self._by_length if of == version), reverse=True)
            ]
            for version, bits in _BITS.items()
        }
        self._spells = Spells[IpAssignment | None]()

    def in_force(self, address: IpAddress, at: int) -> IpAssignment | None:
        """The assignment of the longest prefix of the address in force at an instant in microseconds."""
        return self._spell(address.version, int(address), at)[2]

    def in_force_each(self, addresses: Sequence[Address], at: Integers) -> list[IpAssignment | None]:
        """What `in_force` says of each address at its instant in microseconds.

        Raises:
            ValueError: there are not as many instants as addresses.
        """
        return self._spells.answers(addresses, at, self._find)

    def _find(self, address: Address, at: int) -> Spell[IpAssignment | None]:
        return self._spell(*_number(address), at)

    def _spell(self, version: int, value: int, at: int) -> Spell[IpAssignment | None]:
        """What is in force, bounded by the longer prefixes that were in force before or will be after."""
        since, until = -FOREVER, FOREVER
        for host_bits, histories in self._lengths[version]:
            history = histories.get(value >> host_bits)
            if history is None:
                continue
            begins, ends, assignment = spell_in(history, at)
            since, until = max(since, begins), min(until, ends)
            if assignment is not None:
                return since, until, assignment
        return since, until, None

    def changed(self, assignments: Iterable[IpAssignment]) -> NetworkTable:
        """The table with assignments made or ended; one with an id that is there replaces it."""
        by_length: dict[tuple[int, int], dict[int, list[IpAssignment]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for each in assignments:
            by_length[each.network.version, each.network.prefixlen][_prefix(each.network)].append(each)
        if not by_length:
            return self
        tables = dict(self._by_length)
        for place, changed in by_length.items():
            histories = dict(tables.get(place, {}))
            for prefix, changes in changed.items():
                histories[prefix] = _with(histories.get(prefix, ()), changes)
            tables[place] = histories
        return NetworkTable(tables)


def _number(address: Address) -> tuple[int, int]:
    """The version and the value of an address; v4 is read here, because most are and `ipaddress` takes its time."""
    if ":" in address:
        return 6, int(parsed(address))
    first, second, third, fourth = address.split(".")
    return 4, int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)


def _with(history: _History, changes: Iterable[IpAssignment]) -> _History:
    known = {assignment.id: assignment for _, _, assignment in history}
    known |= {assignment.id: assignment for assignment in changes}
    intervals = [
        (to_microseconds(each.made_at), end_microseconds(each.ended_at), each) for each in known.values()
    ]
    return tuple(sorted(intervals, key=lambda interval: interval[0]))


def _prefix(network: Network) -> int:
    return int(network.network_address) >> (_BITS[network.version] - network.prefixlen)
