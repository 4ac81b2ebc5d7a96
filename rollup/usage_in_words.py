"""Why a ledger row has its class, its seconds, its cost and its month, for a person who asks (L5, L7, L8)."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import phonenumbers

from rollup.classify import OUTBOUND_EMERGENCY, is_call
from rollup.explain_store import PostedRecord
from rollup.rate import billed_seconds
from rollup.tariffs import Tariff
from schemas.money import ledger_cost, plain
from schemas.periods import Period, utc_text

_CLASS_SAYS: Final = {
    "inbound_conversational": "an inbound call to a number that is not toll-free",
    "inbound_toll_free": "an inbound call to a toll-free number",
    OUTBOUND_EMERGENCY: "a call to an emergency number",
    "outbound_toll_free": "a call to a toll-free number",
}


def class_says(record: PostedRecord) -> str:
    """Why a record counts as its usage class (L7, L9)."""
    if not is_call(record.service):
        return f"not a call: the service {record.service!r} is a class of its own"
    if record.usage_class in _CLASS_SAYS:
        return _CLASS_SAYS[record.usage_class]
    region = _region(record.to_number) or "not known"
    domestic = ", ".join(sorted(record.domestic_regions or ())) or "the input's home country"
    where = f"the called region is {region}; domestic are {domestic}"
    if record.usage_class == "outbound_international":
        return where
    short = "under 6 seconds answered" if record.usage_class == "outbound_short_duration" else "domestic"
    return f"{short}; {where}"


def billed_says(record: PostedRecord) -> str:
    """Where the billed seconds come from."""
    tariff = tariff_of(record)
    if tariff is None:
        return "as the switch sent them; had it sent none, the answered seconds rounded up"
    steps = f"{tariff.increment_first_seconds}/{tariff.increment_next_seconds}"
    if record.billed_seconds == billed_seconds(record.answered_seconds, tariff):
        return f"answered seconds rounded up per call in increments of {steps}"
    return "as the switch sent them"


def cost_says(record: PostedRecord) -> str:
    """Where the cost comes from."""
    tariff = tariff_of(record)
    if record.cost == 0 and record.usage_class == OUTBOUND_EMERGENCY:
        return "emergency calls are free"
    if record.cost == 0 and record.billed_seconds == 0 and is_call(record.service):
        return "no billed second, no cost"
    if record.account is None and record.cost == 0:
        return "nobody's usage has no tariff"
    if tariff is None or record.cost != _by_tariff(tariff, record.billed_seconds):
        return "as the switch sent it"
    if tariff.unit == "minute":
        return f"{record.billed_seconds} billed seconds at {plain(tariff.cost)} a minute"
    return f"{plain(tariff.cost)} an event"


def period_says(record: PostedRecord) -> str:
    """Why a record was posted to its month (L5)."""
    month = Period.of(record.started_at)
    if not record.late:
        return f"the call started in {month} (UTC), which was open"
    sealed = f" at {utc_text(record.month_sealed_at)}" if record.month_sealed_at else ""
    return f"late: {month} had been sealed{sealed}, so it went to the oldest open month, shown there as {month}'s"


def tariff_of(record: PostedRecord) -> Tariff | None:
    """The tariff that gave a record's seconds or cost."""
    if (
        record.tariff_id is None
        or record.account_id is None
        or record.tariff_effective_at is None
        or record.tariff_cost is None
    ):
        return None
    return Tariff(
        record.tariff_id,
        record.account_id,
        record.tariff_class or "",
        record.tariff_prefix or "",
        record.tariff_effective_at,
        record.tariff_unit,  # type: ignore[arg-type] # the column's own check allows no other
        record.tariff_cost,
        record.tariff_first_seconds or 1,
        record.tariff_next_seconds or 1,
    )


def _by_tariff(tariff: Tariff, billed: int) -> Decimal:
    return ledger_cost(billed * tariff.cost / 60 if tariff.unit == "minute" else tariff.cost)


def _region(number: str | None) -> str | None:
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number or ""))
    except phonenumbers.NumberParseException:
        return None
