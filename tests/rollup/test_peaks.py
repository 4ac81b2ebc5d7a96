"""How many calls an owner had at once (C3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollup.peaks import CallSpans, peak_channels, peak_channels_of_many

SPANS = st.lists(st.tuples(st.sampled_from([-1, 7, 8]), st.integers(0, 50), st.integers(1, 20)), max_size=60)


def columns(calls: Sequence[tuple[int, int, int]]) -> CallSpans:
    return CallSpans(*np.array(calls, dtype=np.int64).reshape(-1, 3).T)


def peaks(*calls: tuple[int, int, int]) -> dict[int, int]:
    return peak_channels(columns(calls))


def test_a_call_that_ends_as_another_starts_shares_its_channel() -> None:
    assert peaks((7, 0, 10), (7, 10, 20)) == {7: 1}
    assert peaks((7, 0, 11), (7, 10, 20)) == {7: 2}


def test_without_calls_nobody_has_a_peak() -> None:
    assert peaks() == {}


@given(SPANS)
def test_a_peak_is_what_counting_every_instant_gives(calls: list[tuple[int, int, int]]) -> None:
    spans = [(owner, start, start + length) for owner, start, length in calls]
    expected = {
        owner: max(
            sum(1 for who, start, end in spans if who == owner and start <= instant < end)
            for instant in range(71)
        )
        for owner in {owner for owner, _, _ in spans}
    }
    assert peaks(*spans) == expected


def test_a_call_over_the_edge_of_a_slice_of_time_takes_its_channel_on_both_sides() -> None:
    calls = [(7, 0, 20), (7, 15, 25)]
    assert peak_channels_of_many([partial(columns, calls)], calls_max=1) == {7: 2}


@given(SPANS, st.integers(1, 7), st.integers(1, 20))
def test_peaks_of_calls_in_parts_and_slices_of_time_are_those_of_all_at_once(
    calls: list[tuple[int, int, int]], chunk: int, calls_max: int
) -> None:
    spans = [(owner, start, start + length) for owner, start, length in calls]
    parts = [spans[first : first + chunk] for first in range(0, len(spans), chunk)]
    found = peak_channels_of_many([partial(columns, part) for part in parts], calls_max)
    assert found == peaks(*spans)
