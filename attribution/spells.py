"""What was answered lately: a bounded memory that answers most of a batch before a table is searched.

A spell is a stretch of time in which one answer holds. Traffic asks for the same assets over and over, and nearly
every assignment outlasts a batch of records: so most look-ups are one step in a dictionary.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, Generic, TypeVar

from attribution.assets import FOREVER
from schemas.binary import Integers

Answer = TypeVar("Answer")
Spell = tuple[int, int, Answer]
"""From an instant, until another (half-open, microseconds since `EPOCH`), and what holds in between."""

spells_kept_max: Final = 131_072
_since: Final = itemgetter(0)


def spell_in(history: Sequence[Spell[Answer]], at: int) -> Spell[Answer] | Spell[None]:
    """The spell that an instant lies in, of a history in order, not empty; what lies before, between and after is nobody's."""
    latest, until = history[-1], FOREVER
    if at < latest[0]:
        later = bisect_right(history, at, key=_since)
        until = history[later][0]
        if not later:
            return -FOREVER, until, None
        latest = history[later - 1]
    return latest if at < latest[1] else (latest[1], until, None)


class Spells(Generic[Answer]):
    """The spells answered with lately, by asset: at most `spells_kept_max`; when it is full it starts anew."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, Spell[Answer]] = {}

    def answers(
        self, assets: Sequence[str], at: Integers, find: Callable[[str, int], Spell[Answer]]
    ) -> list[Answer]:
        """The answer for each asset at its instant.

        Args:
            assets: as text; the same text must always mean the same asset.
            at: an instant for each, in microseconds since `EPOCH`.
            find: the spell of an asset that an instant in microseconds lies in.

        Raises:
            ValueError: there are not as many instants as assets.
        """
        if len(assets) != len(at):
            raise ValueError(f"{len(assets)} assets cannot be asked for at {len(at)} instants")
        if not assets:
            return []
        earliest, latest = int(at.min()), int(at.max())
        known = list(map(self._known.get, assets))
        return [
            spell[2]
            if spell is not None and spell[0] <= earliest and latest < spell[1]
            else self._at(asset, when, find)
            for asset, when, spell in zip(assets, at.tolist(), known, strict=True)
        ]

    def _at(self, asset: str, at: int, find: Callable[[str, int], Spell[Answer]]) -> Answer:
        spell = self._known.get(asset)
        if spell is None or not spell[0] <= at < spell[1]:
            spell = find(asset, at)
            if len(self._known) >= spells_kept_max:
                self._known.clear()
            self._known[asset] = spell
        return spell[2]
