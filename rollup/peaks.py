"""How many calls at once (C3).

All edges of all owners are sorted once; a running sum over them is each owner's number of channels, because every
owner's sum ends at zero where the next one's begins. At one instant ends come before starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CallSpans:
    """Calls as columns: whose (any number that tells owners apart), from and to (any one unit); `ended` > `answered`."""

    owner: Integers
    answered: Integers
    ended: Integers


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


def _pairs(keys: Integers, values: Integers) -> Sequence[tuple[int, int]]:
    return list(zip(keys.tolist(), values.tolist(), strict=True))
