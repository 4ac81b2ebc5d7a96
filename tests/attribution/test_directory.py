"""The directory against a slow, obvious one that scans a list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution import number_table, spells
from attribution.assets import FOREVER, to_end, to_instant, to_microseconds
from attribution.directory import Changes, Directory, IpAssignment, NumberAssignment
from attribution.number_columns import NumberColumns
from schemas import network
from schemas.binary import microseconds_each
from tests.attribution.worlds import (
    ACCOUNTS,
    BEGINNING,
    BIG,
    END_OF_TIME,
    RESELLER,
    SMALL,
    TENANTS,
    directory,
    each_of,
    number,
    on,
    whose,
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

NOT_NUMBERS = [
    "",
    "911",
    "alice",
    "12125550100",
    "+1 2125550100",
    "+12125550100 ",
    "+12125550100\n",
    "+12_125550100",
    "+02125550100",
    "+" + "9" * 16,
    "+12125550100 +12125550101",
    "+" + "\N{FULLWIDTH DIGIT ONE}" * 11,
    "-12125550100",
]

MOMENT = timedelta(microseconds=1)
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
    address = network.parsed(which)
    covering = [
        row for row in slow_in_force(rows, at) if isinstance(row, IpAssignment) and address in row.network
    ]
    expected = max(covering, key=lambda row: row.network.prefixlen, default=None)
    assert directory(*rows[::-1]).ip_in_force(which, at) == expected


@given(
    in_columns=st.booleans(),
    lives=st.lists(histories(), max_size=4),
    asked=st.lists(st.tuples(st.sampled_from([*NUMBERS, *NOT_NUMBERS]), INSTANTS), max_size=12),
)
def test_a_batch_of_numbers_is_answered_like_each_alone(
    *, in_columns: bool, lives: list[list[Interval]], asked: list[tuple[str, datetime]]
) -> None:
    rows = numbers_of(lives)[::-1]
    world = (
        Directory.of(END_OF_TIME, Changes(ACCOUNTS, TENANTS), NumberColumns.of(rows))
        if in_columns
        else directory(*rows)
    )
    together = world.numbers_in_force([which for which, _ in asked], microseconds_each(at for _, at in asked))
    assert each_of(together) == [whose(world.number_in_force(which, at)) for which, at in asked]


@given(
    lives=st.lists(histories(), max_size=7),
    batches=st.lists(st.lists(st.tuples(st.sampled_from(ADDRESSES), INSTANTS), max_size=8), max_size=3),
    room=st.integers(1, 8),
)
def test_a_batch_of_addresses_is_answered_like_each_alone_whatever_was_asked_before(
    lives: list[list[Interval]], batches: list[list[tuple[str, datetime]]], room: int
) -> None:
    world = directory(*ips_of(lives))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spells, "spells_kept_max", room)
        for asked in batches:
            together = world.ips_in_force(
                [which for which, _ in asked], microseconds_each(at for _, at in asked)
            )
            assert together == [world.ip_in_force(which, at) for which, at in asked]


@pytest.mark.parametrize("recent_max", [0, 2, 100])
@settings(deadline=None)
@given(
    lives=st.lists(histories(), min_size=1, max_size=4),
    fences=st.lists(INSTANTS, max_size=4).map(sorted),
    asked=st.lists(st.tuples(st.sampled_from(NUMBERS), INSTANTS), min_size=1, max_size=5),
)
def test_refreshing_step_by_step_is_loading_at_the_end(
    recent_max: int, lives: list[list[Interval]], fences: list[datetime], asked: list[tuple[str, datetime]]
) -> None:
    rows = numbers_of(lives)
    stepped, before = directory(as_of=BEGINNING), BEGINNING
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(number_table, "recent_rows_min", recent_max)
        for fence in [*fences, END_OF_TIME]:
            stepped = stepped.refreshed(Changes(numbers=changes_between(rows, before, fence)), fence)
            before = fence
    loaded = directory(*rows)
    alone = [loaded.number_in_force(which, at) for which, at in asked]
    assert [stepped.number_in_force(which, at) for which, at in asked] == alone
    together = stepped.numbers_in_force(
        [which for which, _ in asked], microseconds_each(at for _, at in asked)
    )
    assert each_of(together) == [whose(each) for each in alone]


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


def test_an_address_asked_for_before_is_answered_anew_after_a_change() -> None:
    wide = IpAssignment(1, network.network("192.0.2.0/24"), RESELLER, BIG, None, BEGINNING, None)
    narrow = IpAssignment(2, network.network("192.0.2.1/32"), RESELLER, SMALL, None, on(12), None)
    before = directory(wide, as_of=on(10))
    after = before.refreshed(Changes(ips=[narrow]), on(15))
    days, source = [on(9), on(11), on(12), on(14)], "192.0.2.1"
    assert before.ips_in_force([source] * 4, microseconds_each(days)) == [wide] * 4
    assert after.ips_in_force([source] * 4, microseconds_each(days)) == [wide, wide, narrow, narrow]
    assert after.ips_in_force([source] * 2, microseconds_each(days[2:])) == [narrow] * 2
    assert before.ips_in_force([source], microseconds_each([on(9)])) == [wide]


BATCHES = [
    [on(3)],
    [on(4)],
    [on(4), on(3)],
    [on(3), on(1)],
    [on(2)],
    [on(2) - MOMENT],
    [on(4) - MOMENT],
    [on(5)],
]


def test_a_batch_keeps_to_the_instants_at_which_an_assignment_begins_and_ends() -> None:
    """Asked again and again, so that what is remembered keeps to them too."""
    rows = [number(1, NUMBERS[0], BIG, on(2), on(4))]
    numbers = Directory.of(END_OF_TIME, Changes(), NumberColumns.of(rows))
    ips = directory(IpAssignment(1, network.network("192.0.2.0/24"), RESELLER, BIG, None, on(2), on(4)))
    for at in [*BATCHES, *BATCHES[::-1]]:
        expected = [on(2) <= instant < on(4) for instant in at]
        assert [
            owner is not None
            for owner, _, _ in each_of(
                numbers.numbers_in_force([NUMBERS[0]] * len(at), microseconds_each(at))
            )
        ] == expected
        assert [
            each is not None for each in ips.ips_in_force(["192.0.2.1"] * len(at), microseconds_each(at))
        ] == expected


def test_each_asset_of_a_batch_needs_its_instant() -> None:
    none = microseconds_each([])
    assert each_of(directory().numbers_in_force([], none)) == []
    assert directory().ips_in_force([], none) == []
    for ask in (directory().numbers_in_force, directory().ips_in_force):
        with pytest.raises(ValueError, match="2 instants"):
            ask(["192.0.2.1"], microseconds_each([on(1), on(2)]))


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


def test_weaving_keeps_the_columns_sorted_and_replaces_whole_histories() -> None:
    some = [number(i, f"+1212555{i:04}", BIG, on(2)) for i in range(0, 100, 2)]
    columns = NumberColumns.of([*some, number(1_000, "+12125550098", BIG, on(3))])
    others = [number(i, f"+1212555{i:04}", SMALL, on(2)) for i in range(1, 200, 3)]
    woven = columns.sort().replaced(NumberColumns.of(others).sort())
    kept = [each for each in some if (each.id - 1) % 3] + [number(1_000, "+12125550098", BIG, on(3))]
    expected = NumberColumns.of([*kept, *others]).sort()
    for found, wanted in zip(woven.each(), expected.each(), strict=True):
        assert np.array_equal(found, wanted)


def test_the_directory_knows_its_accounts_and_tenants() -> None:
    world = directory()
    assert {account.code for account in world.accounts()} == {"reseller", "rival"}
    assert world.account(RESELLER).home_country == "US"
    assert world.tenant(BIG).code == "bigcustomer.mypbx.com"
    assert world.tenant_named(RESELLER, "rivals.example.com", on(1)) is None
