"""How many calls at once (C3).

All edges of all owners are sorted once; a running sum over them is each owner's number of channels, because every
owner's sum ends at zero where the next one's begins. At one instant ends come before starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
slice_calls_max: Final = 2_000_000  # sorting them takes about 300 MB


@dataclass(frozen=True, slots=True)
class CallSpans:
    """Calls as columns: whose (any number that tells owners apart), from and to (any one unit); `ended` > `answered`."""

    owner: Integers
    answered: Integers
    ended: Integers

    def overlapping(self, begin: int, end: int) -> CallSpans:
        """The calls that take a channel at some instant of [`begin`, `end`)."""
        inside = (self.answered < end) & (self.ended > begin)
        return CallSpans(self.owner[inside], self.answered[inside], self.ended[inside])


Chunk = Callable[[], CallSpans]


def peak_channels(spans: CallSpans) -> dict[int, int]:
    """The most calls each owner had at one instant."""
    if not len(spans.owner):
        return {}
    owner = np.concatenate((spans.owner, spans.owner))
    edge = np.concatenate(
        (spans.answered * 2 + 1, spans.ended * 2)
    )  # the last bit sorts an end before a start
    order = np.lexsort((edge, owner))
    owner = owner[order]
    channels = np.cumsum((edge[order] & 1) * 2 - 1)
    first = np.flatnonzero(np.diff(owner, prepend=owner[0] - 1))
    return dict(_pairs(owner[first], np.maximum.reduceat(channels, first)))


def peak_channels_of_many(chunks: Sequence[Chunk], calls_max: int = slice_calls_max) -> dict[int, int]:
    """The same for more calls than should be in memory at once: one slice of time after the other.

    A slice takes the calls that overlap it whole. Outside of it they are some of the calls there and never more than
    all, so that the largest number found over all slices is the peak.

    Args:
        chunks: the calls in parts, none empty, in any order; each is read when it is called, more than once.
        calls_max: how many calls a slice should have; it may have more where traffic is uneven.
    """
    bounds = [_bounds(chunk()) for chunk in chunks]
    if not bounds:
        return {}
    slices = 1 + sum(calls for _, _, calls in bounds) // calls_max
    first, last = min(bound[0] for bound in bounds), max(bound[1] for bound in bounds)
    peak: dict[int, int] = {}
    for begin, end in pairwise(first + (last - first) * number // slices for number in range(slices + 1)):
        overlapping = [
            chunks[number]().overlapping(begin, end)
            for number, (answered, ended, _) in enumerate(bounds)
            if answered < end and ended > begin
        ]
        for owner, channels in peak_channels(_joined(overlapping)).items():
            peak[owner] = max(channels, peak.get(owner, 0))
    return peak


def _bounds(spans: CallSpans) -> tuple[int, int, int]:
    return int(spans.answered.min()), int(spans.ended.max()), len(spans.owner)


def _joined(spans: Sequence[CallSpans]) -> CallSpans:
    columns = ([getattr(each, name) for each in spans] for name in ("owner", "answered", "ended"))
    return CallSpans(*(np.concatenate(column) if column else np.empty(0, np.int64) for column in columns))


def _pairs(keys: Integers, values: Integers) -> Sequence[tuple[int, int]]:
    return list(zip(keys.tolist(), values.tolist(), strict=True))
