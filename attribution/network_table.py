"""Whose address is it: network assignments by longest prefix among those in force at the instant (A3).

One map per IP version and prefix length, asked from the longest length down. A longer prefix that was released, or
made later, does not hide a shorter one that is in force.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from attribution.assets import IpAssignment, end_microseconds, to_microseconds
from schemas.network import Address, Network

_Interval = tuple[int, int, IpAssignment]  # made, ended, what was in force between
_Histories = Mapping[int, tuple[_Interval, ...]]  # by the bits of the prefix; oldest first
_BITS: Final = {4: 32, 6: 128}


class NetworkTable:
    """An immutable table of network assignments; `changed` makes a new one that shares what did not change."""

    __slots__ = ("_by_length", "_lengths")

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

    def in_force(self, address: Address, at: int) -> IpAssignment | None:
        """The assignment of the longest prefix of the address in force at an instant in microseconds."""
        value = int(address)
        for host_bits, histories in self._lengths[address.version]:
            history = histories.get(value >> host_bits)
            if history is None:
                continue
            for made, ended, assignment in reversed(history):
                if made <= at:
                    if at < ended:
                        return assignment
                    break
        return None

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


def _with(history: tuple[_Interval, ...], changes: Iterable[IpAssignment]) -> tuple[_Interval, ...]:
    known = {assignment.id: assignment for _, _, assignment in history}
    known |= {assignment.id: assignment for assignment in changes}
    intervals = [
        (to_microseconds(each.made_at), end_microseconds(each.ended_at), each) for each in known.values()
    ]
    return tuple(sorted(intervals, key=lambda interval: interval[0]))


def _prefix(network: Network) -> int:
    return int(network.network_address) >> (_BITS[network.version] - network.prefixlen)
