"""With the order inside each partition and Kafka's timestamps fixed, nothing else matters: not which partition or topic is
read first, not how messages fall into batches, not when the resolver looks. Outcomes and totals are the auditor's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import astuple
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from pipeline import position_store
from pipeline.posting import PreparedBatch
from pipeline.prepare import Message
from tests import auditor
from tests.auditor import Received
from tests.test_agreement import (
    CARRIER,
    CHANGE,
    WAIT,
    Again,
    furnished,
    ledger_of,
    pauses,
    posted_row,
    stories,
    told_under,
    value_of,
    with_records,
)
from tests.world import World, _bytes

PARTITIONS = 2
_examples = count(1)
Partition = tuple[str, int]


class Step(NamedTuple):
    """Read so many messages of a partition, and perhaps let the resolver look.

    `kept`: they are written in one transaction with those of the next step that is of another partition and not kept.
    """

    partition: int
    records: int
    resolve: bool
    kept: bool = False


steps = st.lists(
    st.builds(Step, st.integers(0, 2 * PARTITIONS - 1), st.integers(1, 5), st.booleans(), st.booleans()),
    max_size=20,
)


def call(call_id: str = "x", **said: str | None) -> dict[str, Any]:
    """A call that waits for its SIP event."""
    record = {
        "id": "",
        "service": "call",
        "direction": "outbound",
        "call_id": call_id,
        "to_number": "+12125550199",
        "started_at": CHANGE.isoformat(),
        "answered_seconds": 9,
        "cost": "0.01",
        **said,
    }
    return {name: value for name, value in record.items() if value is not None}


def invite(name: str | None, cseq: int = 1, source: str = "192.0.2.9", call_id: str = "x") -> dict[str, Any]:
    return {
        "observed_at": CHANGE,
        "source_ip": source,
        "call_id": call_id,
        "method": "INVITE",
        "cseq": cseq,
        "headers": {} if name is None else {"X-Tenant": name},
    }


FREEPHONE = "+18005550100"  # outbound, and no tariff for it
MOMENT = timedelta(milliseconds=1)
RETRIED_TOO_LATE = [(invite("big"), MOMENT), (call(), MOMENT), (invite("small", 2), MOMENT)]
SAID_AT_LAST = [(call(), MOMENT), (invite("big"), WAIT), (call(), MOMENT), (invite("small", 2), MOMENT)]
RESENT: list[tuple[Any, timedelta]] = [
    (invite("big"), MOMENT),
    (Again(1, {}), WAIT),
    (Again(1, {"cost": "7"}), MOMENT),
]
UNRATED_AT_LAST = [(call(cost=None, to_number=FREEPHONE), MOMENT), *RESENT]
FOREIGN_MONEY_AT_LAST = [(call(currency="EUR"), MOMENT), *RESENT]
CONTRADICTED_THEN_RESENT = [
    (call(source_ip=None), MOMENT),
    (Again(1, {"cost": "7"}), MOMENT),
    (Again(1, {}), MOMENT),
]
FIRST_ALONE = [Step(number, 1, resolve=False) for number in (0, 1)]
ONE_BY_ONE = [Step(number, 1, resolve=True) for number in (0, 1, 2, 3)] * 4
SIP_BEHIND = [Step(0, 9, resolve=True), Step(1, 9, resolve=True), Step(2, 1, resolve=True)]

sources = st.sampled_from([None, "192.0.2.9", "192.0.2.9", "198.51.100.1"])
refusals: st.SearchStrategy[dict[str, str | None]] = st.sampled_from(
    [{}, {}, {}, {"cost": None}, {"cost": None, "to_number": FREEPHONE}, {"currency": "EUR"}]
)
waiting_calls = st.builds(
    lambda call_id, source_ip, refusal: call(call_id, source_ip=source_ip, **refusal),
    st.sampled_from("xxxy"),
    sources,
    refusals,
)
resends = st.builds(Again, st.integers(1, 3), st.sampled_from([{}, {"cost": "7"}, {"currency": "USD"}]))
their_invites = st.builds(
    invite,
    st.sampled_from(["big", "small", "small", None, "Big"]),
    st.integers(1, 2),
    st.sampled_from(["192.0.2.9"] * 5 + ["198.51.100.1"]),
    st.sampled_from("xxxxy"),
)
few_invites = st.lists(their_invites, max_size=2)
races = st.tuples(
    few_invites, waiting_calls, few_invites, st.lists(waiting_calls | their_invites | resends, max_size=4)
).flatmap(
    lambda race: st.tuples(
        *[st.tuples(st.just(each), pauses) for each in [*race[0], race[1], *race[2], *race[3]]]
    ).map(list)
)


@example(story=RETRIED_TOO_LATE, order=[])
@example(story=RETRIED_TOO_LATE, order=SIP_BEHIND)
@example(story=SAID_AT_LAST, order=[])
@example(story=SAID_AT_LAST, order=SIP_BEHIND)
@example(story=UNRATED_AT_LAST, order=SIP_BEHIND)
@example(story=UNRATED_AT_LAST, order=ONE_BY_ONE)
@example(story=FOREIGN_MONEY_AT_LAST, order=SIP_BEHIND)
@example(story=FOREIGN_MONEY_AT_LAST, order=ONE_BY_ONE)
@example(story=CONTRADICTED_THEN_RESENT, order=FIRST_ALONE)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=races, order=steps)
def test_a_call_and_its_sip_events_may_be_read_in_any_order(
    database: Engine, story: list[tuple[Any, timedelta]], order: list[Step]
) -> None:
    assert_alike(furnished(database), story, order)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=stories, order=steps)
def test_partitions_batches_and_the_resolvers_pace_change_neither_outcomes_nor_totals(
    database: Engine, story: list[tuple[Any, timedelta]], order: list[Step]
) -> None:
    assert_alike(furnished(database), story, order)


def assert_alike(world: World, story: list[tuple[Any, timedelta]], order: list[Step]) -> None:
    """What the product makes of a story, read in an order, is what the auditor makes of it."""
    name = f"interleaved-{next(_examples)}"
    happenings = told_under(story, name)
    report = auditor.audit(CARRIER, happenings)
    before, totals_before = Counter(world.outcomes()), _totals(world)
    _read(world, happenings, order)
    assert Counter(world.outcomes()) - before == Counter(report.outcomes())
    assert ledger_of(world, name) == sorted(map(posted_row, with_records(report, happenings)), key=str)
    assert _difference(_totals(world), totals_before) == {
        astuple(group): astuple(sums) for group, sums in report.totals().items()
    }


def _read(world: World, happenings: Iterable[Received], order: list[Step]) -> None:
    """Read the messages partition by partition, in the order that the steps say; what they leave comes at the end."""
    left: dict[Partition, list[Received]] = {
        (topic, number): [] for topic in ("calls.raw", "sip.raw") for number in range(PARTITIONS)
    }
    for serial, each in enumerate(happenings):
        left[each.topic, _partition(each, serial)].append(each)
    with world.engine.begin() as connection:
        connection.execute(text("update stream_positions set read_through_at = null"))
        for (topic, number), messages in left.items():
            position = position_store.ensure_position(connection, topic, number, 0)
            if topic == "sip.raw":
                world.logs.unread[topic, number] = position.next_offset + len(messages)
    kept: dict[Partition, PreparedBatch] = {}
    for step in [*order, *(Step(number, 1_000, resolve=True) for number in range(len(left)))]:
        partition = sorted(left)[step.partition]
        batch, left[partition] = left[partition][: step.records], left[partition][step.records :]
        if partition in kept:
            _post(world, kept)
        if batch:
            kept[partition] = _prepared(world, partition, batch)
        if not step.kept:
            _post(world, kept)
        if step.resolve:
            world.resolve()


def _post(world: World, batches: dict[Partition, PreparedBatch]) -> None:
    """All of them in one transaction."""
    if batches:
        world.poster.post(*batches.values())
        batches.clear()


def _prepared(world: World, partition: Partition, batch: list[Received]) -> PreparedBatch:
    """One batch, each message with its own timestamp."""
    topic, number = partition
    with world.engine.begin() as connection:
        position = position_store.ensure_position(connection, topic, number, 0)
    messages = [
        Message(position.next_offset + index, each.received_at, None, _bytes(value_of(each)))
        for index, each in enumerate(batch)
    ]
    source = next(each for each in world.settings.inputs if each.topic == topic)
    return world.prepared(source, position, messages)


def _partition(each: Received, serial: int) -> int:
    """As switches key them: what has one identity, or one Call-ID on the SIP topic, is in one partition."""
    if not isinstance(each.value, dict):
        return serial % PARTITIONS
    key = each.value.get("id" if each.topic == "calls.raw" else "call_id") or str(serial)
    return sum(key.encode()) % PARTITIONS


def _totals(world: World) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    rows = world.query(
        "select to_char(m.period, 'YYYY-MM'), to_char(m.usage_period, 'YYYY-MM'), a.code, t.code, m.usage_class, m.currency, "
        "m.attempts, m.calls, m.answered_seconds, m.billed_seconds, m.cost from monthly_usage_totals m "
        "left join accounts a on a.id = m.account_id left join tenants t on t.id = m.tenant_id"
    )
    return {tuple(row[:6]): tuple(row[6:]) for row in rows}


def _difference(
    after: dict[tuple[Any, ...], tuple[Any, ...]], before: dict[tuple[Any, ...], tuple[Any, ...]]
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    nothing = defaultdict(lambda: (0, 0, Decimal(0), 0, Decimal(0)), before)
    grown = {
        group: tuple(now - then for now, then in zip(sums, nothing[group], strict=True))
        for group, sums in after.items()
    }
    return {group: sums for group, sums in grown.items() if sums[0]}
