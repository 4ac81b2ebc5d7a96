"""How a switch writes down a call: the records and SIP messages of the sample traffic.

Costs are worked out here from the sample's own price list, in the plainest way, to know what must come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from deploy.sample.carrier import SampleTariff

SWITCH: Final = "sbc-nyc-1"
_MILLISECOND: Final = Decimal("0.001")


@dataclass(frozen=True, slots=True)
class Talk:
    """When a call started, how long it rang, and how long people talked; 0 seconds: nobody answered."""

    started_at: datetime
    ringing: timedelta
    seconds: Decimal

    @property
    def ended_at(self) -> datetime:
        """When it was over."""
        return self.started_at + self.ringing + timedelta(milliseconds=int(self.seconds / _MILLISECOND))

    def fields(self, *, says_seconds: bool) -> dict[str, Any]:
        """The call's times as the record gives them; its length is sometimes told by the times alone."""
        times = {"started_at": wire_time(self.started_at), "ended_at": wire_time(self.ended_at)}
        if not self.seconds:
            return times
        times["answered_at"] = wire_time(self.started_at + self.ringing)
        return times | ({"answered_seconds": str(self.seconds)} if says_seconds else {})


@dataclass(frozen=True, slots=True)
class Rating:
    """Billed seconds and cost of a record, in the carrier's books."""

    billed_seconds: int
    cost: Decimal

    def fields(self, currency: str) -> dict[str, Any]:
        """The rating as a switch sends it."""
        return {"billed_seconds": self.billed_seconds, "cost": format(self.cost, "f"), "currency": currency}


def rated_by_tariff(seconds: Decimal, tariff: SampleTariff | None) -> Rating:
    """What a record without cost comes to; free without a tariff."""
    whole = math.ceil(seconds)
    if tariff is None:
        return Rating(whole, Decimal(0))
    if tariff.unit == "event":
        return Rating(whole, tariff.cost)
    billed = 0
    if whole:
        steps = math.ceil(max(whole - tariff.first_seconds, 0) / tariff.next_seconds)
        billed = tariff.first_seconds + steps * tariff.next_seconds
    cost = (billed * tariff.cost / 60).quantize(Decimal("0.000001"), rounding=ROUND_HALF_UP)
    return Rating(billed, cost)


def wire_time(instant: datetime) -> str:
    """An instant as switches write it: milliseconds, in the zone it carries."""
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def invite(
    call_id: str,
    source_ip: str,
    at: datetime,
    x_tenant: str | None,
    cseq: int = 1,
    **fields: object,
) -> dict[str, Any]:
    """An initial INVITE in the envelope of `sip.raw`."""
    headers = {"User-Agent": "example-pbx/4", **({"X-Tenant": x_tenant} if x_tenant else {})}
    return {
        "switch": SWITCH,
        "observed_at": wire_time(at),
        "source_ip": source_ip,
        "source_port": 5060,
        "call_id": call_id,
        "method": "INVITE",
        "cseq": cseq,
        "from_tag": f"f{call_id[:6]}",
        "headers": headers,
        **fields,
    }


def sip_text(
    call_id: str, source_ip: str, at: datetime, start_line: str, x_tenant: str | None
) -> dict[str, Any]:
    """A SIP message as text, with a folded header as some devices still send it."""
    tenant = f"x-tenant:\r\n {x_tenant}\r\n" if x_tenant else ""
    text = (
        f"{start_line}\r\nVia: SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bK{call_id[:8]}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:pbx@example.com>;tag=f{call_id[:6]}\r\nTo: <sip:callee@example.com>\r\nCall-ID: {call_id}\r\n"
        f"CSeq: 1 INVITE\r\n{tenant}Content-Length: 0\r\n\r\n"
    )
    return {"switch": SWITCH, "observed_at": wire_time(at), "source_ip": source_ip, "raw": text}
