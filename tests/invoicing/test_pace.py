"""How fast Stripe is asked: evenly, below its limits, and each account at a pace of its own."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing.pace import CATCH_UP_SECONDS, PUSHED_BACK_SECONDS, Pace


@dataclass
class Watch:
    """A clock that only moves when someone sleeps, or when it is told to."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def watch() -> Watch:
    return Watch()


def pace_of(per_second: float, watch: Watch) -> Pace:
    return Pace(per_second, watch, watch.sleep)


def test_a_long_run_goes_at_the_permitted_rate(watch: Watch) -> None:
    pace = pace_of(20, watch)
    for _ in range(201):
        pace.admit("acct_a")
    assert watch.now == pytest.approx(200 / 20)
    assert pace.admitted("acct_a") == 201


def test_another_account_does_not_wait(watch: Watch) -> None:
    pace = pace_of(20, watch)
    for _ in range(50):
        pace.admit("acct_a")
    waits = len(watch.slept)
    pace.admit("acct_b")
    assert len(watch.slept) == waits


def test_after_a_429_the_account_waits_a_second_and_the_others_do_not(watch: Watch) -> None:
    pace = pace_of(20, watch)
    pace.admit("acct_a")
    pace.slow_down("acct_a")
    pace.admit("acct_b")
    assert watch.now == 0
    pace.admit("acct_a")
    assert watch.now == pytest.approx(PUSHED_BACK_SECONDS)


def test_a_short_delay_is_caught_up_and_a_long_idle_time_is_not_saved_up(watch: Watch) -> None:
    pace = pace_of(20, watch)
    pace.admit("acct_a")
    watch.now = 3600.0
    for _ in range(50):
        pace.admit("acct_a")
    assert watch.now - 3600 == pytest.approx(49 / 20 - CATCH_UP_SECONDS)


@given(st.lists(st.floats(0, 2), min_size=30, max_size=120), st.sampled_from([1.0, 20.0, 80.0]))
def test_no_second_ever_sees_more_than_a_fifth_above_the_permitted_rate(
    delays: list[float], rate: float
) -> None:
    watch, went = Watch(), []
    pace = pace_of(rate, watch)
    for delay in delays:
        watch.now += delay / rate
        pace.admit("acct_a")
        went.append(watch.now)
    for start in went:
        assert sum(start <= each < start + 1 for each in went) <= rate * (1 + CATCH_UP_SECONDS) + 1


def test_requests_that_a_busy_machine_held_up_do_not_all_go_at_once_afterwards(watch: Watch) -> None:
    woken_late = iter([0.0] * 5 + [1.0] + [0.0] * 200)

    def sleep(seconds: float) -> None:
        watch.now += seconds + next(woken_late)

    pace, went = Pace(20, watch, sleep), []
    for _ in range(60):
        pace.admit("acct_a")
        went.append(watch.now)
    assert max(sum(start <= each < start + 1 for each in went) for start in went) <= 20 * 1.2 + 1


def test_many_threads_share_one_accounts_pace() -> None:
    pace, began_at = Pace(200, time.monotonic, time.sleep), time.monotonic()

    def ask_ten_times(_: int) -> None:
        for _ in range(10):
            pace.admit("acct_a")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask_ten_times, range(8)))
    assert pace.admitted("acct_a") == 80
    assert (
        time.monotonic() - began_at >= 79 / 200 - CATCH_UP_SECONDS
    )  # never faster; slower is the machine's affair
