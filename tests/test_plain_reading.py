"""The quick way to read a call record says what the schema says, or nothing."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.amounts import finer, is_plain_amount, millionths_each, read_millionths
from schemas.binary import microseconds
from schemas.columns import CallColumns
from schemas.plain import complete_calls, read_plainly
from schemas.records import CallRecord, CallRecordOnWire, as_call_record, utc_time

PLAIN: dict[str, Any] = {
    "id": "9934a1ef",
    "switch": "sbc-nyc-1",
    "service": "call",
    "direction": "outbound",
    "call_id": "9934a1ef@example.com",
    "from_number": "+12125550100",
    "to_number": "+442071838750",
    "source_ip": "192.0.2.7",
    "x_tenant": "bigcustomer.mypbx.com",
    "started_at": "2026-10-31T23:59:58.120Z",
    "answered_at": "2026-11-01T00:00:03.500Z",
    "ended_at": "2026-11-01T00:03:03.500Z",
    "answered_seconds": "180.000",
    "billed_seconds": 180,
    "cost": "0.0255",
    "currency": "USD",
    "hangup_cause": "NORMAL_CLEARING",
}
TEXTS = st.sampled_from(
    [
        *("", " ", "x" * 64, "x" * 65, "x" * 256, "x" * 257, "x" * 512, "x" * 513, "x" * 1024, "x" * 1025),
        *(
            "call",
            "inbound",
            "outbound",
            "Inbound",
            "tab\there",
            "nul\0",
            "del\x7f",
            "J\u00fcrgen",
            "\ud800",
            '"',
        ),
        *(
            "+12125550100",
            "911",
            "192.0.2.7",
            "192.0.2.300",
            "::ffff:192.0.2.7",
            "[2001:DB8::1]",
            "fe80::1%eth0",
        ),
        *(
            "2026-10-31T23:59:58Z",
            "2026-10-31T23:59:58+02:00",
            "2026-10-31T23:59:58",
            "2026-10-31T23:59:58.1234567Z",
        ),
        *("2026-10-31", "20261031T235958Z", "2026-10-31 23:59:58z", "0001-01-01T00:00:00+05:00", "yesterday"),
        *("180.000", "180", "1e3", "-1", "1.2345678", "0.0255", "0.1234567890123", "99999999999999", "NaN"),
        *("USD", "usd", "US", "USDT", "U5D", "\u00c9UR"),
    ]
)
NUMBERS = st.one_of(
    st.integers(), st.sampled_from([0, -1, 180, 2**31 - 1, 2**31]), st.floats(), st.booleans()
)
VALUES = st.one_of(TEXTS, NUMBERS, st.none(), st.text(max_size=8), st.just([]), st.just({}))
FIELDS = st.sampled_from([*PLAIN, "unknown"])


AMOUNTS = st.sampled_from(
    [
        Decimal(text)
        for text in (
            *(
                "0",
                "-0",
                "0.000",
                "-0.0000001",
                "0.0000001",
                "0.0000004",
                "0.0000005",
                "0.000001",
                "-0.000001",
            ),
            *("180", "180.000", "1.10", "1.1", "999999999999.999999999999", "999999999999.9999999999990"),
        )
    ]
)


def by_the_schema(value: bytes) -> CallRecord | None:
    try:
        return as_call_record(CallRecordOnWire.model_validate_json(value))
    except ValidationError:
        return None


def test_a_message_as_switches_write_it_is_read_plainly() -> None:
    value = json.dumps(PLAIN).encode()

    assert read_plainly(value) == by_the_schema(value) is not None


@pytest.mark.parametrize("left_out", [name for name in PLAIN if name not in CallRecord.__struct_fields__[:5]])
def test_a_message_without_what_it_may_lack_is_read_plainly(left_out: str) -> None:
    value = json.dumps({name: each for name, each in PLAIN.items() if name != left_out}).encode()

    assert read_plainly(value) == by_the_schema(value) is not None


@given(changes=st.dictionaries(FIELDS, VALUES, max_size=3), ascii_only=st.booleans())
def test_what_is_read_plainly_is_what_the_schema_reads(changes: dict[str, Any], *, ascii_only: bool) -> None:
    value = json.dumps({**PLAIN, **changes}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    assert read_plainly(value) in (None, by_the_schema(value))


@given(
    cuts=st.lists(
        st.tuples(st.integers(0, 500), st.integers(0, 4), st.binary(max_size=3)), min_size=1, max_size=3
    )
)
def test_whatever_the_bytes_the_quick_way_never_says_more_than_the_schema(
    cuts: list[tuple[int, int, bytes]],
) -> None:
    value = json.dumps(PLAIN).encode()
    for at, length, instead in cuts:
        value = value[:at] + instead + value[at + length :]

    assert read_plainly(value) in (None, by_the_schema(value))


# by the batch


def row_of(columns: CallColumns, place: int) -> list[Any]:
    return [
        each.tolist() if isinstance(each, np.ndarray) else each
        for each in (column[place] for column in columns)
    ]


@given(
    values=st.lists(
        st.dictionaries(FIELDS, VALUES, max_size=2).map(
            lambda changes: json.dumps({**PLAIN, **changes}).encode()
        ),
        max_size=6,
    )
)
def test_calls_by_column_are_what_each_message_alone_is(values: list[bytes]) -> None:
    places, columns = complete_calls(values)

    for row, place in enumerate(places):
        record = read_plainly(values[place])
        assert record is not None
        assert row_of(columns, row) == row_of(CallColumns.of([record]), 0)


@given(
    instant=st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)),
    decimals=st.integers(0, 6),
)
def test_instants_that_are_written_alike_are_read_exactly(instant: datetime, decimals: int) -> None:
    fraction = f".{instant.microsecond:06}"[: decimals + 1] if decimals else ""
    started = f"{instant.replace(microsecond=0).isoformat()}{fraction}Z"
    value = json.dumps({**PLAIN, "started_at": started, "answered_at": started, "ended_at": started}).encode()

    places, columns = complete_calls([value] * 3)

    assert [*places] == [0, 1, 2]
    assert columns.started.tolist() == [microseconds(utc_time(started))] * 3


@pytest.mark.parametrize(
    "started",
    [
        *(
            "2026-02-29T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-00-01T00:00:00.000Z",
            "2026-01-00T00:00:00.000Z",
        ),
        *(
            "2026-01-01T24:00:00.000Z",
            "2026-01-01T00:60:00.000Z",
            "2026-12-31T23:59:60.000Z",
            "0000-01-01T00:00:00.000Z",
        ),
        *(
            "2026-01-01T00:00:0:.000Z",
            "2026-01-01T00:00:00.0/0Z",
            "2026-01-01T00:00:00.000z",
            "2026/01-01T00:00:00.000Z",
        ),
    ],
)
def test_an_instant_that_there_is_not_is_left_to_the_schema_and_nothing_else_with_it(started: str) -> None:
    value, wrong = json.dumps(PLAIN).encode(), json.dumps({**PLAIN, "started_at": started}).encode()

    places, _ = complete_calls([value, wrong, value])

    taken = {0, 2} if by_the_schema(wrong) is None else {0, 1, 2}
    assert set(places) == taken


def test_line_breaks_cannot_move_a_record_to_another_message() -> None:
    one = json.dumps(PLAIN).encode()
    halves = one[:40], one[40:]
    two = one + b"\n" + one

    assert complete_calls([one, two, b"", one])[0] == [0, 3]
    assert complete_calls([*halves, two])[0] == []
    assert complete_calls([json.dumps(PLAIN, indent=1).encode(), one])[0] == [0, 1]


@given(texts=st.lists(st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,6})?", fullmatch=True), max_size=8))
def test_amounts_that_are_written_plainly_are_read_exactly(texts: list[str]) -> None:
    assert read_millionths(texts).tolist() == [int(Decimal(text) * 10**6) for text in texts]


@pytest.mark.parametrize(
    "strange",
    [
        *("", ".", ".5", "5.", "1.2.3", "-1", "+1", "1e3", "1 2", " 1", "1 ", "1,5", "NaN", "\u0661"),
        *("1234567890", "1.1234567", "0.0000000", "1..2", "1:2", "1/2"),
    ],
)
def test_amounts_of_which_one_is_written_otherwise_are_left_to_the_schema(strange: str) -> None:
    assert not is_plain_amount(strange)
    for texts in ([strange], [strange, "1.5"], ["1.5", strange], ["0", strange, "123456789.123456"]):
        with pytest.raises(ValueError, match="amount"):
            read_millionths(texts)


@given(texts=st.lists(st.text("0123456789. ", max_size=12), min_size=1, max_size=4))
def test_amounts_are_read_together_where_each_is_plain_and_only_there(texts: list[str]) -> None:
    if all(map(is_plain_amount, texts)):
        assert read_millionths(texts).tolist() == [int(Decimal(text) * 10**6) for text in texts]
    else:
        with pytest.raises(ValueError, match="amount"):
            read_millionths(texts)


@given(
    first=st.tuples(st.none() | AMOUNTS, st.none() | AMOUNTS),
    second=st.tuples(st.none() | AMOUNTS, st.none() | AMOUNTS),
)
def test_amounts_are_told_alike_where_they_are_equal_and_only_there(
    first: tuple[Decimal | None, ...], second: tuple[Decimal | None, ...]
) -> None:
    def told(amounts: tuple[Decimal | None, ...]) -> tuple[list[int], bytes]:
        return millionths_each(amounts).tolist(), finer(*amounts)

    assert (told(first) == told(second)) == (first == second)


@pytest.mark.parametrize("currency", ["usd", "U5D", "U D", None])
def test_a_call_whose_currency_is_no_code_is_not_read_by_the_batch(currency: str | None) -> None:
    one, other = (json.dumps({**PLAIN, "currency": each}).encode() for each in ("USD", currency))

    assert complete_calls([one, other, one])[0] == [0, 2]
