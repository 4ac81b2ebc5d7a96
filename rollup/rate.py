"""What did it cost (L7, L8).

Quantities and costs that the switch sent stand; what it left out comes from the account's tariff in force at the
instant. Rounded once: seconds up to the tariff's increments per call, cost to six decimals.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Final, assert_never

import msgspec

from rollup.classify import OUTBOUND_EMERGENCY, is_call, usage_class
from rollup.tariffs import Tariff, Tariffs
from rollup.terms import NO_CURRENCY, AccountTerms
from schemas import numbers
from schemas.money import ledger_cost
from schemas.records import CallRecord

_MICROSECOND: Final = timedelta(microseconds=1)
_FREE: Final = Decimal("0.000000")


class Rated(msgspec.Struct, frozen=True, gc=False):
    """A record as it enters the ledger. `answered_seconds` before, `billed_seconds` after increments.

    `tariff_id`: the tariff that gave seconds or cost, None where the switch sent both. `region_unknown`: see L9.
    """

    usage_class: str
    answered: bool
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal
    currency: str
    tariff_id: int | None
    region_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Unrated:
    """No cost was sent and no tariff is in force: quarantined as `unrated` until there is one."""

    detail: str


def rate(record: CallRecord, terms: AccountTerms, tariffs: Tariffs) -> Rated | Unrated:
    """Class, quantities and cost of a plausible record (L7, L8)."""
    seconds = answered_seconds(record)
    slug, region_unknown = usage_class(
        record.service, record.direction, record.to_number, record.from_number, seconds, terms
    )
    complete = record.billed_seconds is not None and record.cost is not None
    tariff = None if complete else _tariff(record, slug, terms, tariffs)
    billed = record.billed_seconds if record.billed_seconds is not None else billed_seconds(seconds, tariff)
    cost = _cost(record, slug, billed, terms, tariff)
    if cost is None:
        return Unrated(_missing(record, slug, tariff))
    return Rated(
        slug,
        record.answered_at is not None or seconds > 0,
        seconds,
        billed,
        cost,
        terms.currency or record.currency or NO_CURRENCY,
        tariff.id if tariff else None,
        region_unknown,
    )


def answered_seconds(record: CallRecord) -> Decimal:
    """Seconds from answer to end: as sent, else by the times; 0 for an attempt, however long it rang (L7)."""
    if record.answered_seconds is not None:
        return record.answered_seconds
    if record.answered_at is None or record.ended_at is None:
        return Decimal(0)
    return Decimal((record.ended_at - record.answered_at) // _MICROSECOND).scaleb(-6)


def billed_seconds(seconds: Decimal, tariff: Tariff | None) -> int:
    """Answered seconds of one call rounded up to its tariff's increments; to whole seconds without a tariff."""
    whole = int(seconds.to_integral_value(ROUND_CEILING))
    if whole <= 0 or tariff is None:
        return max(whole, 0)
    first, following = tariff.increment_first_seconds, tariff.increment_next_seconds
    increments = -(-max(whole - first, 0) // following)
    return first + increments * following


def _tariff(record: CallRecord, slug: str, terms: AccountTerms, tariffs: Tariffs) -> Tariff | None:
    if terms.account_id is None:
        return None
    called = numbers.dialled(record.to_number, terms.home_country) if record.to_number else ""
    return tariffs.in_force(terms.account_id, slug, called.removeprefix("+"), record.started_at)


def _cost(
    record: CallRecord, slug: str, billed: int, terms: AccountTerms, tariff: Tariff | None
) -> Decimal | None:
    """The cost as sent, else free where L8 says so, else by tariff; None where nothing tells it."""
    if record.cost is not None:
        return ledger_cost(record.cost)
    free = slug == OUTBOUND_EMERGENCY or (billed == 0 and is_call(record.service))
    if free or terms.account_id is None:
        return _FREE
    return None if tariff is None else _cost_by(tariff, billed)


def _cost_by(tariff: Tariff, billed: int) -> Decimal | None:
    match tariff.unit:
        case "minute":
            return ledger_cost(billed * tariff.cost / 60)
        case "event":
            return ledger_cost(tariff.cost)
        case "month":
            return None
        case _:
            assert_never(tariff.unit)


def _missing(record: CallRecord, slug: str, tariff: Tariff | None) -> str:
    if tariff is not None:
        return f"the tariff of {slug} is per {tariff.unit}, which prices no single record"
    return f"no cost was sent, and no tariff for {slug} is in force on {record.started_at:%Y-%m-%d}"
