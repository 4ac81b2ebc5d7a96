"""What makes a record another one, though it has the identity of one that stands (L2)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest

from rollup.ledger_rows import content_ids
from schemas.records import CallRecord

RECORD: Final = CallRecord(
    id="call-0",
    switch="sbc-1",
    service="call",
    direction="outbound",
    started_at=datetime(2026, 10, 31, 12, tzinfo=UTC),
    call_id="a@example.com",
    from_number="+12125550100",
    to_number="+12125550199",
    source_ip="192.0.2.7",
    x_tenant="bigcustomer.mypbx.com",
    answered_at=datetime(2026, 10, 31, 12, 0, 5, tzinfo=UTC),
    ended_at=datetime(2026, 10, 31, 12, 3, 5, tzinfo=UTC),
    answered_seconds=Decimal("180.000"),
    billed_seconds=180,
    cost=Decimal("0.0255"),
    currency="USD",
)


def content(**changes: Any) -> bytes:
    return content_ids([msgspec.structs.replace(RECORD, **changes)])[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"switch": "sbc-2"},
        {"service": "sms"},
        {"direction": "inbound"},
        {"started_at": datetime(2026, 10, 31, 12, 0, 0, 1, tzinfo=UTC)},
        *({"call_id": each} for each in ("b@example.com", None, "")),
        *({"to_number": each} for each in ("+12125550198", None)),
        *({"source_ip": each} for each in ("192.0.2.8", "2001:db8::7", None)),
        *({"x_tenant": each} for each in ("other", None)),
        *({"answered_at": each} for each in (datetime(2026, 10, 31, 12, 0, 6, tzinfo=UTC), None)),
        *({"ended_at": each} for each in (datetime(2026, 10, 31, 12, 3, 6, tzinfo=UTC), None)),
        *({"answered_seconds": Decimal(each)} for each in ("180.000001", "0")),
        *({"billed_seconds": each} for each in (181, 0, None)),
        *({"cost": Decimal(each)} for each in ("0.0256", "0.0255001", "0.02550001", "0", "-0.0255")),
        {"cost": None},
        {"answered_seconds": None},
        *({"currency": each} for each in ("EUR", None)),
    ],
    ids=str,
)
def test_whatever_matters_for_a_bill_makes_it_another(changes: dict[str, Any]) -> None:
    assert content(**changes) != content()


@pytest.mark.parametrize(
    "changes",
    [
        {"from_number": "+12125550101"},
        {"answered_seconds": Decimal(180)},
        {"cost": Decimal("0.02550000000")},
        {"started_at": datetime.fromisoformat("2026-10-31T14:00:00+02:00")},
    ],
    ids=str,
)
def test_what_is_the_same_in_other_words_is_the_same(changes: dict[str, Any]) -> None:
    assert content(**changes) == content()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"cost": Decimal(0)}, {"cost": None}),
        ({"billed_seconds": 0}, {"billed_seconds": None}),
        ({"cost": Decimal("1.0000001")}, {"cost": Decimal("1.0000002")}),
        ({"cost": Decimal("0.0000004")}, {"cost": Decimal(0)}),
        ({"cost": Decimal("-0.0000004")}, {"cost": Decimal("0.0000004")}),
        ({"call_id": "ab", "to_number": "c"}, {"call_id": "a", "to_number": "bc"}),
        ({"x_tenant": None, "currency": "USD"}, {"x_tenant": "USD", "currency": None}),
    ],
    ids=str,
)
def test_what_nearly_is_the_same_is_another(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert content(**one) != content(**other)


def test_nothing_is_written_in_two_ways() -> None:
    assert content(cost=Decimal("-0")) == content(cost=Decimal(0))
