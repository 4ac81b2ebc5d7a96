"""The directory against a slow, obvious one that scans a list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution import number_table
from attribution.assets import FOREVER, to_end, to_instant, to_microseconds
from attribution.directory import Changes, Directory, IpAssignment, NumberAssignment
from attribution.number_table import NumberColumns
from schemas import network
from tests.attribution.worlds import (
    ACCOUNTS,
    BEGINNING,
    BIG,
    END_OF_TIME,
    RESELLER,
    SMALL,
    TENANTS,
    directory,
    number,
    on,
)

NUMBERS = ["+12125550100", "+12125550101", "+442071838750", "+999999999999999"]
NETWORKS = [
    "0.0.0.0/0",
    "192.0.2.0/24",
    "192.0.2.0/29",
    "192.0.2.1/32",
    "::/0",
    "2001:db8::/32",
    "2001:db8::1/128",
]
ADDRESSES = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.200",
    "203.0.113.1",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db9::1",
    "::1",
]

Interval = tuple[datetime, datetime | None]


@st.composite
def histories(draw: st.DrawFn) -> list[Interval]:
    """The life of one asset: intervals in order, some touching, some with gaps, the last one perhaps open."""
    hours = sorted(draw(st.sets(st.integers(0, 40), max_size=10)))
    if len(hours) % 2 and draw(st.booleans()):
        hours.pop()
    instants = [on(1) + timedelta(hours=hour) for hour in hours]
    moves = draw(st.booleans())  # each ends where the next begins
    if instants and moves:
        return list(zip(instants, [*instants[1:], draw(st.sampled_from([None, on(5)]))], strict=True))
    ends: list[datetime | None] = list(instants[1::2])
    return list(zip(instants[::2], [*ends, None], strict=False))


INSTANTS = st.integers(-2, 200).map(lambda half_hours: on(1) + timedelta(minutes=30 * half_hours))


def slow_in_force(
    rows: Sequence[NumberAssignment] | Sequence[IpAssignment], at: datetime
) -> list[NumberAssignment | IpAssignment]:
    return [row for row in rows if row.made_at <= at and (row.ended_at is None or at < row.ended_at)]


def numbers_of(lives: Sequence[Sequence[Interval]]) -> list[NumberAssignment]:
    spans = [(which, span) for which, life in zip(NUMBERS, lives, strict=False) for span in life]
    return [number(id_, which, BIG if id_ % 3 else None, *span) for id_, (which, span) in enumerate(spans, 1)]


def ips_of(lives: Sequence[Sequence[Interval]]) -> list[IpAssignment]:
    spans = [(which, span) for which, life in zip(NETWORKS, lives, strict=False) for span in life]
    return [
        IpAssignment(id_, ip_network(which), RESELLER, BIG if id_ % 2 else None, None, *span)
        for id_, (which, span) in enumerate(spans, 1)
    ]


def as_known(rows: Sequence[NumberAssignment], fence: datetime) -> list[NumberAssignment]:
    """The rows as a load at a fence sees them."""
    return [
        number(
            row.id,
            row.number,
            row.tenant_id,
            row.made_at,
            row.ended_at if row.ended_at and row.ended_at <= fence else None,
        )
        for row in rows
        if row.made_at <= fence
    ]


def changes_between(
    rows: Sequence[NumberAssignment], after: datetime, fence: datetime
) -> list[NumberAssignment]:
    return [
        row
        for row in as_known(rows, fence)
        if row.made_at > after or (row.ended_at is not None and row.ended_at > after)
    ]


@given(st.lists(histories(), max_size=4), st.sampled_from(NUMBERS), INSTANTS)
def test_a_number_is_whose_a_list_says(lives: list[list[Interval]], which: str, at: datetime) -> None:
    rows = numbers_of(lives)
    expected = [
        row for row in slow_in_force(rows, at) if isinstance(row, NumberAssignment) and row.number == which
    ]
    found = directory(*rows[::-1]).number_in_force(which, at)
    assert ([found] if found else []) == expected


@given(st.lists(histories(), max_size=7), st.sampled_from(ADDRESSES), INSTANTS)
def test_an_address_is_whose_the_longest_prefix_in_force_says(
    lives: list[list[Interval]], which: str, at: datetime
) -> None:
    rows = ips_of(lives)
    address = network.address(which)
    covering = [
        row for row in slow_in_force(rows, at) if isinstance(row, IpAssignment) and address in row.network
    ]
    expected = max(covering, key=lambda row: row.network.prefixlen, default=None)
    assert directory(*rows[::-1]).ip_in_force(address, at) == expected


@pytest.mark.parametrize("overlay_max", [0, 2, 100])
@settings(deadline=None)
@given(
    lives=st.lists(histories(), min_size=1, max_size=4),
    fences=st.lists(INSTANTS, max_size=4).map(sorted),
    which=st.sampled_from(NUMBERS),
    at=INSTANTS,
)
def test_refreshing_step_by_step_is_loading_at_the_end(
    overlay_max: int, lives: list[list[Interval]], fences: list[datetime], which: str, at: datetime
) -> None:
    rows = numbers_of(lives)
    stepped, before = directory(as_of=BEGINNING), BEGINNING
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(number_table, "overlay_numbers_max", overlay_max)
        for fence in [*fences, END_OF_TIME]:
            stepped = stepped.refreshed(Changes(numbers=changes_between(rows, before, fence)), fence)
            before = fence
    assert stepped.number_in_force(which, at) == directory(*rows).number_in_force(which, at)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1)))
def test_an_instant_survives_as_microseconds(naive: datetime) -> None:
    instant = naive.replace(tzinfo=BEGINNING.tzinfo)
    assert to_instant(to_microseconds(instant)) == instant
    assert to_end(FOREVER) is None


def test_a_longer_prefix_that_was_released_does_not_hide_a_shorter_one() -> None:
    wide = IpAssignment(1, network.network("192.0.2.0/24"), RESELLER, BIG, None, BEGINNING, None)
    narrow = IpAssignment(2, network.network("192.0.2.1/32"), RESELLER, SMALL, None, on(5), on(10))
    world = directory(wide, narrow)
    owners = [world.ip_in_force(network.address("192.0.2.1"), on(day)) for day in (4, 5, 10)]
    assert owners == [wide, narrow, wide]


def test_a_refresh_leaves_the_snapshot_before_it_as_it_was() -> None:
    before = directory(number(1, NUMBERS[0], BIG), as_of=on(10))
    moved = [number(1, NUMBERS[0], BIG, BEGINNING, on(12)), number(2, NUMBERS[0], SMALL, on(12))]
    after = before.refreshed(Changes(numbers=moved), on(15))
    assert (before.as_of, after.as_of) == (on(10), on(15))
    assert before.number_in_force(NUMBERS[0], on(9)) == number(1, NUMBERS[0], BIG)
    assert after.number_in_force(NUMBERS[0], on(13)) == moved[1]


def test_columns_in_any_order_make_the_same_directory() -> None:
    rows = [
        number(1, NUMBERS[1], BIG, on(1), on(2)),
        number(2, NUMBERS[1], SMALL, on(3)),
        number(3, NUMBERS[0], None),
    ]
    world = Directory.of(END_OF_TIME, Changes(ACCOUNTS, TENANTS), NumberColumns.of(rows))
    assert world.number_in_force(NUMBERS[1], on(3)) == rows[1]
    assert world.number_in_force(NUMBERS[1], on(2)) is None
    assert world.number_in_force(NUMBERS[0], on(2)) == rows[2]


def test_a_merge_keeps_the_columns_sorted() -> None:
    table = number_table.NumberTable(
        NumberColumns.of([number(i, f"+1212555{i:04}", BIG) for i in range(0, 100, 2)])
    )
    merged = table.changed(number(i, f"+1212555{i:04}", SMALL) for i in range(1000, 1100, 3))._merged()
    numbers = merged._columns.numbers
    assert len(numbers) == 84
    assert np.all(numbers[1:] > numbers[:-1])


def test_the_directory_knows_its_accounts_and_tenants() -> None:
    world = directory()
    assert {account.code for account in world.accounts()} == {"reseller", "rival"}
    assert world.account(RESELLER).home_country == "US"
    assert world.tenant(BIG).code == "bigcustomer.mypbx.com"
    assert world.tenant_named(RESELLER, "rivals.example.com", on(1)) is None
