"""The quick lane comes to what a record comes to alone, whatever the batch, and takes what is ordinary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.attribute import InputRules
from pipeline.ordinary import Messages, OrdinaryUsage, prepare_batch, read
from pipeline.prepare import InputSpec, Message, Outcome, Snapshot, decode, prepare
from rollup.tariffs import Tariffs
from rollup.terms import AccountTerms, domestic_by_default
from rollup.unposted import HeldRow
from schemas.formats import Format
from schemas.periods import Period
from tests.attribution.worlds import BIG, RESELLER, RIVAL, SMALL, dedicated, directory, number, shared
from tests.world import columns_of

AS_OF: Final = datetime(2026, 11, 2, tzinfo=UTC)
RECEIVED: Final = datetime(2026, 11, 1, 0, 5, tzinfo=UTC)
SNAPSHOT: Final = Snapshot(
    directory(
        number(1, "+12125550100", BIG),
        number(2, "+18005550100", None),
        number(3, "+12125550101", BIG, ended_at=datetime(2026, 10, 31, 23, tzinfo=UTC)),
        dedicated(4, "192.0.2.0/24", BIG),
        shared(5, "198.51.100.0/24"),
        shared(6, "2001:db8::/32", SMALL),
        as_of=AS_OF,
    ),
    Tariffs(),
    {
        RESELLER: AccountTerms(RESELLER, "USD", "US", domestic_by_default("US")),
        RIVAL: AccountTerms(RIVAL, "EUR", "DE", domestic_by_default("DE")),
    },
    Period(2026, 1),
)
ORDINARY: Final[dict[str, Any]] = {
    "id": "call-0",
    "switch": "sbc-1",
    "service": "call",
    "direction": "outbound",
    "call_id": "a@example.com",
    "from_number": "+12125550100",
    "to_number": "+12125550199",
    "source_ip": "192.0.2.7",
    "started_at": "2026-10-31T23:59:58.120Z",
    "answered_at": "2026-11-01T00:00:03.500Z",
    "ended_at": "2026-11-01T00:03:03.500Z",
    "answered_seconds": "180.000",
    "billed_seconds": 180,
    "cost": "0.0255",
    "currency": "USD",
}
VALUES: Final[dict[str, list[Any]]] = {
    "id": ["call-1", "", "J\u00fcrgen", "x" * 257],
    "switch": ["sbc-2", 7],
    "service": ["sms", "Call", "call "],
    "direction": ["inbound", "sideways"],
    "call_id": [None, "tab\tinside"],
    "from_number": [None, "anonymous", ""],
    "to_number": [
        None,
        "+12125550100",
        "+12125550101",
        "+18005550100",
        "911",
        "+442071838750",
        "2125550100",
        "alice",
    ],
    "source_ip": [None, "198.51.100.9", "2001:db8::9", "203.0.113.1", "::ffff:192.0.2.8", "192.0.2.300"],
    "x_tenant": [None, "", "bigcustomer.mypbx.com", "BIGCUSTOMER.mypbx.com", " x ", "nobody", "nul\0"],
    "started_at": [
        *(
            "2026-10-31T23:59:58Z",
            "2026-10-31T23:30:00.120Z",
            "2026-11-01T01:59:58.120+02:00",
            "2026-02-30T00:00:00.000Z",
        ),
        *(
            "2026-10-31T23:59:60.000Z",
            "2026-11-03T00:00:00.000Z",
            "2024-10-31T23:59:58.120Z",
            "0001-01-01T00:00:00.000Z",
        ),
        *(
            "9999-12-31T23:59:59.999Z",
            "2026-10-31T24:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-10-31T23:59:58.1234567Z",
            "",
        ),
    ],
    "answered_at": [
        None,
        "2026-11-01T00:00:03.500000Z",
        "2026-10-31T00:00:03.500Z",
        "2026-11-01T00:04:03.500Z",
    ],
    "ended_at": [None, "2026-10-31T23:59:58.119Z", "2026-11-02T00:03:03.500Z"],
    "answered_seconds": [None, 0, "0", "-0", 5, "5.999999", "86400", "86400.000001", "-1", "1e2", 1.5],
    "billed_seconds": [None, 0, -1, 86_400, 86_401, 2**31, "180"],
    "cost": [None, "0", "-0", "-0.0000001", "0.0000005", "999999999999.123456789012", "1e-3", 0.5],
    "currency": [None, "EUR", "usd"],
    "unknown": [None, [{}]],
}
changes = st.dictionaries(st.sampled_from(list(VALUES)), st.integers(0, 20), max_size=3)
records = changes.map(
    lambda chosen: {
        **ORDINARY,
        **{name: VALUES[name][which % len(VALUES[name])] for name, which in chosen.items()},
    }
)
written = records.map(lambda record: json.dumps(record).encode())
values = st.lists(
    st.one_of(written, written, written, st.sampled_from([None, b"", b"{}", b"[1]\n[2]", b'{"id":1}\n{}'])),
    max_size=12,
)


def spec_of(*, sip_context: bool) -> InputSpec:
    rules = InputRules(sip_context=sip_context, home_country="US", edge_addresses=frozenset())
    return InputSpec(3, "calls", Format(), rules, timedelta(minutes=5))


def messages_of(each: Sequence[bytes | None]) -> Messages:
    return columns_of([Message(offset, RECEIVED, b"key", value) for offset, value in enumerate(each, 100)])


def together(
    spec: InputSpec, batch: Messages, snapshot: Snapshot = SNAPSHOT
) -> tuple[OrdinaryUsage, dict[int, Outcome]]:
    """What the lane took, and what each message came to, by its offset."""
    ordinary, items = prepare_batch(spec, read(spec, batch), snapshot)
    outcomes: dict[int, Outcome] = {
        offset: ordinary.usage.row(place) for place, offset in enumerate(ordinary.messages.offsets.tolist())
    }
    assert outcomes.keys().isdisjoint(item.message.offset for item in items)
    return ordinary, outcomes | {item.message.offset: item.outcome for item in items}


def alone(spec: InputSpec, batch: Messages, snapshot: Snapshot = SNAPSHOT) -> dict[int, Outcome]:
    """What each message comes to alone, one after the other."""
    outcomes = {}
    for place, offset in enumerate(batch.offsets):
        (item,) = prepare(spec, decode(spec, [batch.message(place)]), snapshot)
        outcomes[offset] = item.outcome
    return outcomes


@settings(max_examples=400)
@given(each=values, sip_context=st.booleans())
def test_a_batch_comes_to_what_its_records_come_to_alone(
    each: list[bytes | None], *, sip_context: bool
) -> None:
    spec, batch = spec_of(sip_context=sip_context), messages_of(each)

    assert together(spec, batch)[1] == alone(spec, batch)


@pytest.mark.parametrize(
    ("started", "oldest", "reason"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), Period(2026, 1), None),
        (datetime(2025, 12, 31, 23, 59, 58, tzinfo=UTC), Period(2026, 1), "too_old"),
        (RECEIVED - timedelta(days=400), Period(2025, 1), None),
        (RECEIVED - timedelta(days=400, microseconds=1), Period(2025, 1), "too_old"),
        (AS_OF, Period(2026, 1), None),
        (AS_OF + timedelta(microseconds=1), Period(2026, 1), "clock_ahead"),
    ],
)
def test_a_complete_call_of_another_time_comes_to_the_same_in_the_lane_and_alone(
    started: datetime, oldest: Period, reason: str | None
) -> None:
    answered, ended = started + timedelta(seconds=5), started + timedelta(seconds=185)
    times = {"started_at": started, "answered_at": answered, "ended_at": ended}
    call = ORDINARY | {name: f"{at:%Y-%m-%dT%H:%M:%S.%fZ}" for name, at in times.items()}
    spec, batch = spec_of(sip_context=False), messages_of([json.dumps(call).encode()])

    took, outcomes = together(spec, batch, replace(SNAPSHOT, oldest=oldest))

    assert outcomes == alone(spec, batch, replace(SNAPSHOT, oldest=oldest))
    assert took.usage.records == (reason is None)
    assert getattr(outcomes[100], "reason", None) == reason


def test_ordinary_calls_take_the_lane_answered_or_not() -> None:
    inbound = {"direction": "inbound", "to_number": "+12125550100", "source_ip": None}
    missed = {"answered_at": None, "answered_seconds": 0, "billed_seconds": 0, "cost": "0"}
    named = {"source_ip": "198.51.100.9", "x_tenant": "bigcustomer.mypbx.com"}
    batch = messages_of([json.dumps(ORDINARY | some).encode() for some in ({}, inbound, missed, named)])

    ordinary, _ = together(spec_of(sip_context=False), batch)

    assert ordinary.messages.offsets.tolist() == [100, 101, 102, 103]


def test_on_a_shared_address_without_a_name_only_a_call_with_an_id_waits_for_its_events() -> None:
    """Two calls of one source, which alone decides where no events are to come."""
    unnamed = ORDINARY | {"source_ip": "198.51.100.9"}
    batch = messages_of([json.dumps(unnamed | {"call_id": each}).encode() for each in ("a", None, "b")])

    for sip_context in (True, False):
        spec = spec_of(sip_context=sip_context)
        _, outcomes = together(spec, batch)
        assert outcomes == alone(spec, batch)
        assert [isinstance(each, HeldRow) for _, each in sorted(outcomes.items())] == [
            sip_context,
            False,
            sip_context,
        ]


def test_one_strange_message_leaves_the_others_in_the_lane() -> None:
    """Each kind of strangeness: bytes, line breaks, types, meaning, plausibility, ownership."""
    ordinary = json.dumps(ORDINARY).encode()
    strange = [
        *(b"\xff", b"{", ordinary + b"\n" + ordinary, None),
        *(
            json.dumps(ORDINARY | changed).encode()
            for changed in (
                {"billed_seconds": "180"},
                {"started_at": "2026-02-30T00:00:00.000Z"},
                {"cost": "-1"},
                {"source_ip": "203.0.113.1"},
                {"currency": "EUR"},
            )
        ),
    ]
    for each in strange:
        took, outcomes = together(spec_of(sip_context=False), messages_of([ordinary, each, ordinary]))
        assert took.messages.offsets.tolist() == [100, 102]
        assert outcomes.keys() == {100, 101, 102}


def test_a_message_is_kept_beside_its_row() -> None:
    batch = messages_of([json.dumps(ORDINARY).encode()])

    ordinary, _ = together(spec_of(sip_context=False), batch)

    assert ordinary.messages.message(0) == Message(100, RECEIVED, b"key", batch.values[0])
