"""The directory with many assets, long histories and deep nesting, against a slow, obvious one; and out of Postgres."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from attribution import columns_store, number_table
from attribution.assets import to_microseconds
from attribution.changes_store import take_change_instant
from attribution.directory import Changes, Directory, IpAssignment, NumberAssignment
from attribution.number_columns import NumberColumns
from attribution.number_table import NumberTable
from deploy.bench.holdings import addresses, make_holdings, move, number_of
from schemas.binary import microseconds_each
from tests.attribution.stores import loaded
from tests.attribution.worlds import BIG, END_OF_TIME, RESELLER, SMALL, directory, each_of, number, on, whose

MINUTE = timedelta(minutes=1)
Histories = Mapping[str, Sequence[NumberAssignment]]


def histories(count: int, chosen: random.Random) -> Histories:
    """Numbers of seven to fifteen digits: most assigned once, some moved or released, a few often."""
    lives: dict[str, list[NumberAssignment]] = {}
    while len(lives) < count:
        which = f"+{chosen.randrange(10**6, 10 ** chosen.randint(7, 15))}"
        turns = chosen.choice([2, 2, 2, 2, 3, 4, 40]) - chosen.randint(0, 1)
        instants = [on(1) + MINUTE * each for each in sorted(chosen.sample(range(40_000), turns))]
        ends: list[datetime | None] = (
            [*instants[1:]] if turns > 1 and chosen.random() < 0.3 else [*instants[1:], None]
        )
        first = len(lives) * 100 + 1
        lives[which] = [
            number(first + turn, which, chosen.choice([None, BIG, SMALL]), made_at, ended_at)
            for turn, (made_at, ended_at) in enumerate(zip(instants, ends, strict=False))
            if chosen.random() < 0.9  # a hole here and there
        ]
    return lives


def slowly(lives: Histories, which: str, at: datetime) -> int | None:
    held = [
        each.id
        for each in lives.get(which, ())
        if each.made_at <= at and (each.ended_at is None or at < each.ended_at)
    ]
    assert len(held) <= 1
    return held[0] if held else None


def found(world: Directory, asked: Sequence[tuple[str, datetime]]) -> list[int | None]:
    """Ids, alone and together, which must be the same."""
    together = world.numbers_in_force([which for which, _ in asked], microseconds_each(at for _, at in asked))
    alone = [world.number_in_force(which, at) for which, at in asked]
    assert each_of(together) == [whose(each) for each in alone]
    return [each.id if each else None for each in alone]


def questions(lives: Histories, chosen: random.Random, count: int) -> list[tuple[str, datetime]]:
    """Numbers that are there, their neighbours, and what is no number; within the month, and now and then far from it."""
    known = list(lives)
    asked = []
    for _ in range(count):
        which = chosen.choice(known)
        if chosen.random() < 0.1:
            which = chosen.choice([f"+{int(which) + 1}", f"+{int(which) - 1}", "911", "+1", f"+{'9' * 15}"])
        far = chosen.random() < 0.01
        at = on(1) + MINUTE * (chosen.choice([-(10**7), 10**7]) if far else chosen.randrange(-100, 41_000))
        asked.append((which, at))
    return asked


@pytest.mark.parametrize("count", [1, 100, 255, 256, 257, 4_000])
def test_thousands_of_numbers_are_whose_a_list_says(count: int) -> None:
    chosen = random.Random(count)
    lives = histories(count, chosen)
    rows = [each for life in lives.values() for each in life]
    chosen.shuffle(rows)
    world = Directory.of(END_OF_TIME, Changes(), NumberColumns.of(rows))
    asked = questions(lives, chosen, 2_000)
    assert found(world, asked) == [slowly(lives, which, at) for which, at in asked]
    one_instant = [(which, asked[0][1]) for which, _ in asked]
    assert found(world, one_instant) == [slowly(lives, which, at) for which, at in one_instant]


def test_changes_by_the_thousand_are_merged_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_table, "recent_rows_min", 300)
    chosen = random.Random(7)
    lives = histories(2_000, chosen)
    rows = sorted((each for life in lives.values() for each in life), key=lambda each: each.made_at)
    half = on(14)
    known = [
        each if each.ended_at and each.ended_at <= half else ended_later(each)
        for each in rows
        if each.made_at <= half
    ]
    world = Directory.of(half, Changes(), NumberColumns.of(known))
    fences = [half, *(on(14) + timedelta(days=each) for each in (1, 2, 4, 7)), END_OF_TIME]
    for after, fence in pairwise(fences):
        changes = [
            each if each.ended_at and each.ended_at <= fence else ended_later(each)
            for each in rows
            if after < each.made_at <= fence
            or (each.made_at <= fence and each.ended_at and after < each.ended_at <= fence)
        ]
        world = world.refreshed(Changes(numbers=changes), fence)
    asked = questions(lives, chosen, 2_000)
    assert found(world, asked) == [slowly(lives, which, at) for which, at in asked]


def ended_later(assignment: NumberAssignment) -> NumberAssignment:
    return number(assignment.id, assignment.number, assignment.tenant_id, assignment.made_at)


def test_a_number_moved_five_thousand_times_keeps_every_move() -> None:
    instants = [on(1) + MINUTE * turn for turn in range(5_000)]
    busy = "+12125550150"
    life = [number(turn + 1, busy, BIG, *span) for turn, span in enumerate(pairwise(instants))]
    others = [number(10_000 + each, f"+1212555{each:04}", SMALL) for each in range(100, 200) if each != 150]
    world = Directory.of(END_OF_TIME, Changes(), NumberColumns.of([*others, *life]))
    asked = [(busy, at + shift) for at in instants[::7] for shift in (timedelta(0), -MINUTE / 60, MINUTE / 2)]
    expected = [bisect_right(instants, at) if on(1) <= at < instants[-1] else None for _, at in asked]
    assert found(world, asked) == expected
    assert found(world, [("+12125550149", on(2)), ("+12125550151", on(2))]) == [10_149, 10_151]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_of_prefixes_of_every_length_the_longest_in_force_wins(data: st.DataObject) -> None:
    """Each length of a v4 and of a v6 address has a life of its own, up to 129 deep."""
    chosen = data.draw(st.randoms(use_true_random=False))
    nested = [
        within(target, length)
        for target, bits in (("192.0.2.77", 32), ("2001:db8::77", 128))
        for length in range(bits + 1)
    ]
    rows: list[IpAssignment] = []
    for network in nested:
        instants = [
            on(1) + MINUTE * each for each in sorted(chosen.sample(range(200), chosen.choice([0, 2, 4])))
        ]
        rows += [
            IpAssignment(len(rows) + 1 + turn, network, RESELLER, BIG, None, *span)
            for turn, span in enumerate(zip(instants[::2], instants[1::2], strict=True))
        ]
    world = directory(*chosen.sample(rows, len(rows)))
    sources = ["192.0.2.77", "192.0.2.76", "192.0.3.1", "2001:db8::77", "2001:db8::78", "2001:db9::1", "::1"]
    asked = [(chosen.choice(sources), on(1) + MINUTE * chosen.randrange(-5, 205)) for _ in range(200)]
    expected = [longest(rows, source, at) for source, at in asked]
    assert (
        world.ips_in_force([source for source, _ in asked], microseconds_each(at for _, at in asked))
        == expected
    )
    assert [world.ip_in_force(source, at) for source, at in asked] == expected


def within(address: str, length: int) -> IPv4Network | IPv6Network:
    return ip_network(f"{address}/{length}", strict=False)


def longest(rows: Sequence[IpAssignment], source: str, at: datetime) -> IpAssignment | None:
    address = ip_address(source)
    covering = [
        each
        for each in rows
        if address in each.network and each.ended_at and each.made_at <= at < each.ended_at
    ]
    return max(covering, key=lambda each: each.network.prefixlen, default=None)


def test_a_large_directory_comes_out_of_the_database_whole_and_follows_its_changes(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_store, "_chunk_bytes_max", 20_000)
    monkeypatch.setattr(columns_store, "_growth_rows", 1_000)
    make_holdings(database, numbers=5_000, networks=500, tenants=1_000)
    before = loaded(database)
    numbers = [number_of(asset) for asset in range(1, 5_001)]
    with database.begin() as connection:
        at = take_change_instant(connection)
        assert move(connection, at, numbers[:1_000], ["10.0.3.9/32"]) == 991  # ten were released before
    after, anew = loaded(database, before), loaded(database)
    with database.connect() as connection:
        rows = connection.execute(text("select id, number, made_at, ended_at from number_assignments")).all()
    assert len(rows) == 5_500 + 990
    for when in (
        datetime(2018, 7, 1, tzinfo=at.tzinfo),
        datetime(2020, 3, 1, tzinfo=at.tzinfo),
        at - MINUTE,
        at,
    ):
        held = {
            row.number: row.id
            for row in rows
            if row.made_at <= when and (row.ended_at is None or when < row.ended_at)
        }
        asked = [(each, when) for each in [*numbers, "+10000000000"]]
        expected = [held.get(each) for each, _ in asked]
        assert found(after, asked) == found(anew, asked) == expected
        if when < at:
            assert found(before, asked) == expected
    sources = addresses(500)
    answers = after.ips_in_force(sources, microseconds_each([at] * 500))
    assert answers == anew.ips_in_force(sources, microseconds_each([at] * 500))
    assert [each.network.prefixlen for each in answers if each] == [24, 29, 32, 32] * 100 + [48] * 100
    moved = sources.index("10.0.3.9")
    assert [
        each.tenant_id
        for each in (before.ips_in_force(sources, microseconds_each([at] * 500))[moved], answers[moved])
        if each
    ] == [4, None]


def test_a_table_that_began_empty_answers_by_what_changed() -> None:
    empty = NumberTable.of(NumberColumns.of(()))
    nobodys = empty.in_force_each(["+12125550100", "911"], microseconds_each([on(1), on(2)]))
    assert each_of(nobodys) == [(None, None, None)] * 2
    held = empty.changed([number(1, "+12125550100", BIG, on(2))])
    twice = held.in_force_each(["+12125550100"] * 2, microseconds_each([on(1), on(2)]))
    assert each_of(twice) == [(None, None, None), (1, RESELLER, BIG)]
    assert held.in_force("+12125550100", to_microseconds(on(2))) is not None
