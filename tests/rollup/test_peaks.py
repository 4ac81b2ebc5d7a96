"""How many calls an owner had at once (C3)."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollup.peaks import CallSpans, peak_channels

SPANS = st.lists(st.tuples(st.sampled_from([-1, 7, 8]), st.integers(0, 50), st.integers(1, 20)), max_size=60)


def peaks(*calls: tuple[int, int, int]) -> dict[int, int]:
    columns = np.array(calls, dtype=np.int64).reshape(-1, 3).T
    return peak_channels(CallSpans(columns[0], columns[1], columns[2]))


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
