"""What does the carrier charge an account for a usage class (L8).

A tariff holds from its `effective_at` until the next one of the same account, class and called prefix. Among those
in force the longest prefix wins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Literal, NamedTuple

TariffUnit = Literal["minute", "event", "month"]


@dataclass(frozen=True, slots=True)
class Tariff:
    """The cost of a billed minute, of one event, or of one number for one month.

    `prefix`: leading digits of the called number, without plus sign; empty for any. The first
    `increment_first_seconds` of a call are billed whole, and each `increment_next_seconds` after them (60/6, 1/1).
    """

    id: int
    account_id: int
    usage_class: str
    prefix: str
    effective_at: datetime
    unit: TariffUnit
    cost: Decimal
    increment_first_seconds: int = 1
    increment_next_seconds: int = 1


class Tariffs:
    """Every tariff of an installation at one moment; never changes."""

    __slots__ = ("_classes",)

    def __init__(self, tariffs: Iterable[Tariff] = ()) -> None:
        by_class: dict[tuple[int, str], dict[str, list[Tariff]]] = defaultdict(lambda: defaultdict(list))
        for tariff in sorted(tariffs, key=attrgetter("effective_at")):
            by_class[tariff.account_id, tariff.usage_class][tariff.prefix].append(tariff)
        self._classes = {key: _timelines(prefixes) for key, prefixes in by_class.items()}

    def in_force(self, account_id: int, usage_class: str, called_digits: str, at: datetime) -> Tariff | None:
        """The tariff of the longest prefix in force at an instant.

        Args:
            account_id: whose tariffs.
            usage_class: a slug of L7, or a number class.
            called_digits: E.164 without plus sign, or a short code as dialled.
            at: the record's instant (A1).
        """
        for timeline in self._classes.get((account_id, usage_class), ()):
            if called_digits.startswith(timeline.prefix):
                begun = bisect_right(timeline.effective_at, at)
                if begun:
                    return timeline.tariffs[begun - 1]
        return None


class _Timeline(NamedTuple):
    """The tariffs of one prefix, one after the other."""

    prefix: str
    effective_at: list[datetime]
    tariffs: list[Tariff]


def _timelines(prefixes: dict[str, list[Tariff]]) -> list[_Timeline]:
    longest_first = sorted(prefixes.items(), key=lambda item: -len(item[0]))
    return [
        _Timeline(prefix, [each.effective_at for each in tariffs], tariffs)
        for prefix, tariffs in longest_first
    ]
