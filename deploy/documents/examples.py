"""One month of one fictional tenant, told as messages: what the schemas show and a test sends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from rollup.announcement import AccountTold, Announcement, ToldStatement, period_closed, statement_closed
from schemas.identity import fact_id
from schemas.periods import Period
from schemas.statements import NumbersHeld, Statement, StatementLine, StatementTotals, sha256_hex

Message = dict[str, Any]
_OCTOBER: Final = Period(2026, 10)
_CLOSED_AT: Final = datetime(2026, 11, 3, 0, 1, 7, tzinfo=UTC)


def calls() -> list[Message]:
    """An answered call outwards, an attempt inwards, and an event of a service that is no call."""
    outbound = {
        "id": "9934a1ef-08c3-1238-9ba8-022c7a011cae",
        "switch": "sbc-nyc-1",
        "service": "call",
        "direction": "outbound",
        "call_id": "9934a1ef-08c3-1238-9ba8-022c7a011cae",
        "from_number": "+12125550100",
        "to_number": "+442079460000",
        "source_ip": "198.51.100.7",
        "x_tenant": "bigcustomer.mypbx.com",
        "started_at": "2026-10-31T23:59:58.120Z",
        "answered_at": "2026-11-01T00:00:03.500Z",
        "ended_at": "2026-11-01T00:03:03.500Z",
        "answered_seconds": "180.000",
        "billed_seconds": 180,
        "cost": "0.0255",
        "currency": "USD",
    }
    attempt = {
        "id": "in-2",
        "switch": "sbc-nyc-1",
        "service": "call",
        "direction": "inbound",
        "from_number": "+12125550142",
        "to_number": "+12125550100",
        "started_at": "2026-10-05T12:00:00Z",
        "ended_at": "2026-10-05T12:00:20Z",
    }
    lookup = {
        "id": "cnam-3",
        "switch": "sbc-nyc-1",
        "service": "caller_id_lookup",
        "direction": "inbound",
        "to_number": "+12125550100",
        "started_at": "2026-10-05T12:00:00Z",
    }
    return [outbound, attempt, lookup]


def sip() -> list[Message]:
    """An INVITE by its fields, and the same as text."""
    seen = {"switch": "sbc-nyc-1", "observed_at": "2026-10-31T23:59:58.001Z", "source_ip": "198.51.100.7"}
    by_fields = {
        "source_port": 5060,
        "call_id": "9934a1ef-08c3-1238-9ba8-022c7a011cae",
        "method": "INVITE",
        "cseq": 102,
        "from_tag": "as5b1c",
        "headers": {"X-Tenant": "bigcustomer.mypbx.com"},
    }
    text = (
        "INVITE sip:+442079460000@sbc.example.net SIP/2.0\r\n"
        "From: <sip:+12125550100@pbx.example.com>;tag=as5b1c\r\n"
        "To: <sip:+442079460000@sbc.example.net>\r\n"
        "Call-ID: 9934a1ef-08c3-1238-9ba8-022c7a011cae\r\n"
        "CSeq: 102 INVITE\r\n"
        "X-Tenant: bigcustomer.mypbx.com\r\n\r\n"
    )
    return [seen | by_fields, seen | {"raw": text}]


def statements() -> list[Message]:
    """A tenant's statement, as subscribers are told of it."""
    return [json.loads(statement_announced().value)]


def periods() -> list[Message]:
    """The account's month, behind its statements."""
    return [json.loads(period_announced().value)]


def statement_announced() -> Announcement:
    """The event of the tenant's statement, made as the close makes it."""
    statement = _statement()
    body = statement.canonical_bytes()
    return statement_closed(ToldStatement(statement, body, sha256_hex(body)), _CLOSED_AT, "statements.closed")


def period_announced() -> Announcement:
    """The event of the account's month, made as the close makes it."""
    told = AccountTold("USD", 1, _statement().totals.total_cost)
    return period_closed(_OCTOBER, "reseller", told, _CLOSED_AT, "periods.closed")


def _statement() -> Statement:
    usage_cost, number_cost = Decimal("0.0255"), Decimal("2.00")
    line = StatementLine(
        usage_class="outbound_international",
        usage_period=str(_OCTOBER),
        late=False,
        attempts=1,
        calls=1,
        answered_seconds=Decimal("180.000"),
        billed_seconds=180,
        cost=usage_cost,
    )
    return Statement(
        statement_id=str(fact_id("example statement", "reseller", "bigcustomer.mypbx.com", str(_OCTOBER))),
        kind="tenant",
        account="reseller",
        tenant="bigcustomer.mypbx.com",
        tenant_name="Big Customer",
        period=str(_OCTOBER),
        currency="USD",
        lines=(line,),
        numbers=(NumbersHeld(usage_class="number_local", count=2, cost=number_cost),),
        peak_concurrent_channels=1,
        totals=StatementTotals(
            attempts=1,
            calls=1,
            answered_seconds=line.answered_seconds,
            billed_seconds=180,
            usage_cost=usage_cost,
            number_cost=number_cost,
            total_cost=usage_cost + number_cost,
        ),
        as_of=datetime(2026, 11, 1, tzinfo=UTC),
    )
