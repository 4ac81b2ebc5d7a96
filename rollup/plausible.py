"""Can this be true (L6).

What cannot is quarantined and never repaired: a wrong clock or a lost hang-up must not become a bill.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from rollup.terms import AccountTerms
from schemas.binary import NEVER, Integers, microseconds
from schemas.columns import CallColumns
from schemas.periods import Period, utc_text
from schemas.records import CallRecord

record_age_max: Final = timedelta(days=400)
call_duration_max: Final = timedelta(hours=24)
_seconds_max: Final = int(call_duration_max.total_seconds())
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record must not be posted; `detail` for a person. `by_terms`: only its owner's terms tell, not it alone."""

    reason: Literal["implausible", "too_old"]
    detail: str
    by_terms: bool = False


def implausible(
    record: CallRecord, terms: AccountTerms, received_at: datetime, oldest: Period
) -> Refusal | None:
    """Why a record must not be posted, or None where nothing speaks against it.

    Args:
        record: as the switch sent it.
        terms: of the account it belongs to; its currency is the only one its records may carry.
        received_at: the Kafka timestamp, by which age is measured.
        oldest: the first month that exists in the ledger.
    """
    detail = _contradiction(record) or _too_long(record)
    if detail:
        return Refusal("implausible", detail)
    detail = _too_old(record, received_at, oldest)
    if detail:
        return Refusal("too_old", detail)
    detail = _foreign_currency(record, terms)
    return Refusal("implausible", detail, by_terms=True) if detail else None


def ordinary(calls: CallColumns, received: Integers, oldest: Period) -> NDArray[np.bool_]:
    """Of which calls `implausible` says nothing, whatever their owner's terms, but for the currency; it may be told of fewer.

    Args:
        calls: by column, each with seconds and cost.
        received: the Kafka timestamps, in microseconds since `schemas.binary.EPOCH`.
        oldest: the first month that exists in the ledger.
    """
    started, ended = calls.started, calls.ended
    answered = np.where(calls.answered == NEVER, started, calls.answered)
    told: NDArray[np.bool_] = (
        (started <= answered)
        & (answered <= ended)
        & (ended - started <= call_duration_max // _MICROSECOND)
        & (received - started <= record_age_max // _MICROSECOND)
        & (started >= microseconds(oldest.starts_at))
        & (calls.answered_seconds >= 0)
        & (calls.answered_seconds <= call_duration_max // _MICROSECOND)
        & (calls.billed_seconds >= 0)
        & (calls.billed_seconds <= _seconds_max)
        & (calls.costs >= 0)
    )
    if any(calls.finer):  # less than nothing may come to nothing
        told &= np.array([not each for each in calls.finer], dtype=np.bool_)
    return told


def _contradiction(record: CallRecord) -> str | None:
    if record.ended_at is not None:
        if record.answered_at is not None and record.ended_at < record.answered_at:
            return "ended_at is before answered_at"
        if record.ended_at < record.started_at:
            return "ended_at is before started_at"
    if record.answered_seconds is not None and record.answered_seconds < 0:
        return "answered_seconds is negative"
    if record.billed_seconds is not None and record.billed_seconds < 0:
        return "billed_seconds is negative"
    if record.cost is not None and record.cost < 0:
        return "cost is negative"
    return None


def _too_long(record: CallRecord) -> str | None:
    first = min(record.started_at, record.answered_at or record.started_at)
    if record.ended_at is not None and record.ended_at - first > call_duration_max:
        return "it lasted longer than 24 hours"
    if record.answered_seconds is not None and record.answered_seconds > _seconds_max:
        return "answered_seconds is more than 24 hours"
    if record.billed_seconds is not None and record.billed_seconds > _seconds_max:
        return "billed_seconds is more than 24 hours"
    return None


def _foreign_currency(record: CallRecord, terms: AccountTerms) -> str | None:
    if record.currency is None or terms.currency is None or record.currency == terms.currency:
        return None
    return f"currency {record.currency} is not the account's {terms.currency}"


def _too_old(record: CallRecord, received_at: datetime, oldest: Period) -> str | None:
    if received_at - record.started_at > record_age_max:
        return f"started {utc_text(record.started_at)}, more than {record_age_max.days} days before it was received"
    if (record.started_at.year, record.started_at.month) < (oldest.year, oldest.month):
        return f"started {utc_text(record.started_at)}, before the ledger's first month {oldest}"
    return None
