"""Sums are exact whatever the amounts, and rows by column are the rows one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recent_identities import RecentIdentities
from rollup.ledger import (
    IDENTITY_BYTES,
    Payer,
    UsageColumns,
    UsageRow,
    identity_of,
    in_order,
    nearby_midnight,
    nearby_midnights,
)
from rollup.sums import Totals, UsageGroup, UsageSums, sums_of
from schemas.binary import day_of, microseconds_each, number_of
from schemas.columns import rows_at, rows_joined

OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)
PAYERS = [
    Payer(1, 2, "call", "USD"),
    Payer(1, None, "call", "USD"),
    Payer(None, None, "call", "XXX"),
    Payer(2**62, 2**63 - 1, "call", "USD"),
    Payer(2**62, 2**24, "sms", "USD"),
    Payer(2**24 - 1, 2**24 - 1, "call", "EUR"),
]

rows = st.builds(
    UsageRow,
    identity=st.builds(
        identity_of, st.sampled_from([OCTOBER, date(2026, 10, 31)]), st.binary(min_size=16, max_size=16)
    ),
    content=st.binary(min_size=16, max_size=16),
    payer=st.sampled_from(PAYERS),
    answered=st.booleans(),
    answered_millionths=st.integers(0, 86_400_000_000),
    billed_seconds=st.integers(0, 86_400),
    cost_millionths=st.integers(0, 10**18),
    started_at=st.datetimes(datetime(2026, 10, 1), datetime(2026, 11, 30), timezones=st.just(UTC)),
    position_id=st.integers(1, 9),
    kafka_offset=st.integers(0, 2**62),
    line=st.binary(max_size=3),
)


def by_group(totals: Totals) -> dict[UsageGroup, UsageSums]:
    """Each group's sums, one by one; no group is there twice."""
    found = {
        UsageGroup(
            day_of(period), day_of(usage_period), number_of(account), number_of(tenant), *tally
        ): UsageSums(int(attempts), int(calls), Decimal(answered) / 10**6, int(billed), Decimal(cost) / 10**6)
        for period, usage_period, account, tenant, tally, attempts, calls, answered, billed, cost in zip(
            *[each.tolist() if isinstance(each, np.ndarray) else each for each in totals], strict=True
        )
    }
    assert len(found) == len(totals.attempts)
    return found


def slowly(given_rows: Sequence[UsageRow], posted_to: dict[date, date]) -> dict[UsageGroup, UsageSums]:
    groups = defaultdict(list)
    for row in given_rows:
        month = row.started_at.date().replace(day=1)
        groups[UsageGroup(posted_to[month], month, *row.payer)].append(row)
    return {
        group: UsageSums(
            len(members),
            sum(row.answered for row in members),
            sum((Decimal(row.answered_millionths) / 10**6 for row in members), Decimal(0)),
            sum(row.billed_seconds for row in members),
            sum((Decimal(row.cost_millionths) / 10**6 for row in members), Decimal(0)),
        )
        for group, members in groups.items()
    }


def test_sums_go_beyond_64_bits() -> None:
    row = UsageRow(
        identity_of(OCTOBER, bytes(16)),
        bytes(16),
        PAYERS[0],
        True,  # noqa: FBT003 (a row's field)
        1,
        1,
        10**18,
        datetime(2026, 10, 1, tzinfo=UTC),
        1,
        1,
        b"",
    )
    [sums] = by_group(sums_of(UsageColumns.of([row] * 20), np.arange(20), {OCTOBER: OCTOBER})).values()
    assert sums.cost == Decimal(20 * 10**12)


@given(given_rows=st.lists(rows, max_size=30), which=st.data())
def test_sums_are_those_of_an_adding_machine(given_rows: list[UsageRow], which: st.DataObject) -> None:
    """A million millions a row is within 64 bits; thirty of them are not."""
    posted_to = {OCTOBER: NOVEMBER, NOVEMBER: NOVEMBER}
    places = which.draw(
        st.lists(st.sampled_from(range(len(given_rows))), unique=True) if given_rows else st.just([])
    )

    totals = sums_of(UsageColumns.of(given_rows), np.array(places, dtype=np.int64), posted_to)

    assert by_group(totals) == slowly([given_rows[place] for place in places], posted_to)


@given(first=st.lists(rows, max_size=5), second=st.lists(rows, max_size=5))
def test_columns_hold_the_rows_they_were_made_of(first: list[UsageRow], second: list[UsageRow]) -> None:
    columns = rows_joined([UsageColumns.of(first), UsageColumns.of(second)])
    everything = range(columns.records)

    assert [columns.row(place) for place in everything] == [*first, *second]
    backwards = rows_at(columns, everything[::-1])
    assert [backwards.row(place) for place in everything] == [*first, *second][::-1]


@given(
    identities=st.lists(
        st.builds(
            identity_of,
            st.sampled_from([date(1999, 12, 31), OCTOBER]),
            st.sampled_from(
                [b"\x00" * 16, b"\xff" * 16, b"\x80" + b"\x00" * 15, b"\x80" + b"\x00" * 14 + b"\x01"]
            ),
        ),
        max_size=8,
    )
)
def test_identities_are_ordered_as_the_index_is_and_none_that_is_there_twice_is_missed(
    identities: list[bytes],
) -> None:
    order, alike = in_order(np.array(identities, dtype=IDENTITY_BYTES))

    by_date = [(int.from_bytes(each[:4], "big", signed=True), each[4:12]) for each in identities]
    assert [by_date[place] for place in order] == sorted(by_date)
    assert set(alike) >= {place for place, each in enumerate(identities) if identities.count(each) > 1}


@given(
    st.lists(st.datetimes(datetime(2026, 10, 1), datetime(2026, 10, 3), timezones=st.just(UTC)), max_size=5)
)
def test_midnights_are_nearby_together_as_they_are_alone(instants: list[datetime]) -> None:
    midnight = datetime(2026, 10, 2, tzinfo=UTC)
    instants += [
        midnight + timedelta(microseconds=each)
        for each in (-300_000_001, -300_000_000, 299_999_999, 300_000_000)
    ]

    assert nearby_midnights(microseconds_each(instants)).tolist() == [
        nearby_midnight(each) is not None for each in instants
    ]


def test_what_was_posted_lately_is_suspected_until_it_is_forgotten() -> None:
    keys = [number.to_bytes(16, "big") for number in range(0, 2**120, 2**118)]
    first, second, third, fourth = (
        np.array([identity_of(OCTOBER, key)], dtype=IDENTITY_BYTES) for key in keys
    )
    recent = RecentIdentities(size_max=2)

    assert not recent.known(first).any()
    recent.add(np.concatenate((first, second)))
    recent.add(third)
    assert recent.known(np.concatenate((second, first, third))).tolist() == [True] * 3
    assert not recent.known(fourth).any()
    recent.add(np.concatenate((third, fourth)))
    assert recent.known(np.concatenate((first, fourth))).tolist() == [False, True]


def test_one_surprise_makes_doubt_and_a_batch_that_is_mostly_surprises_a_replay() -> None:
    recent = RecentIdentities()
    told = []
    for met in (0, 1, 50, 51, 100, 50, 0):
        recent.surprised(met, of=100)
        told.append((recent.doubtful, recent.replaying))
    sure, doubt, replay = (False, False), (True, False), (True, True)
    assert told == [sure, doubt, doubt, replay, replay, doubt, sure]
