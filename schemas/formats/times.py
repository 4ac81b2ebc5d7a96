"""When was it: the times that switches write, as instants (A1).

Epochs in seconds, milliseconds and microseconds; ISO 8601 with an offset, with `Z`, or local to a zone. A local time
that happened twice (the hour a clock was set back) is told apart by the record's own durations and by what else is
known of its start; where that leaves a choice, and where a local time never happened, the record is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import product
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

_from_iso: Final = datetime.fromisoformat
_from_timestamp: Final = datetime.fromtimestamp
_NEVER: Final = ("", "<null>", "(null)")
first_second: Final = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
last_second: Final = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
first_microsecond: Final = int(first_second) * 1_000_000
last_microsecond: Final = int(last_second) * 1_000_000
_rounding: Final = timedelta(seconds=1, microseconds=1)  # whole seconds, cut or rounded
_start_tolerance: Final = timedelta(seconds=2)  # a channel is named by its second; its record begins with it


class TimeError(ValueError):
    """A time that cannot be read, never happened, or happened twice."""


def from_seconds(value: object) -> datetime | None:
    """An instant from an epoch in seconds, with any decimals; None for absent, empty or 0 (it did not happen)."""
    if value.__class__ is float and first_second <= value < last_second:
        return _from_timestamp(value, UTC)
    return _instant(value, 1)


def from_milliseconds(value: object) -> datetime | None:
    """An instant from an epoch in milliseconds; None for absent, empty or 0."""
    return _instant(value, 1_000)


def from_microseconds(value: object) -> datetime | None:
    """An instant from an epoch in microseconds; None for absent, empty or 0."""
    if value.__class__ is int and first_microsecond <= value < last_microsecond:
        return _from_timestamp(value / 1_000_000, UTC)
    return _instant(value, 1_000_000)


def _instant(value: Any, units_a_second: int) -> datetime | None:  # noqa: ANN401 (any JSON)
    """A double holds an epoch of this age to a quarter of a microsecond, so the nearest one is exact."""
    if value is None:
        return None
    try:
        seconds = float(value) / units_a_second
    except (TypeError, ValueError, OverflowError):
        if value in _NEVER:
            return None
        raise TimeError("no epoch time") from None
    if first_second <= seconds < last_second:
        return _from_timestamp(seconds, UTC)
    if seconds == 0:
        return None
    raise TimeError("an epoch time of another unit, or of another century")


def candidates(text: str, zone: ZoneInfo | None) -> tuple[datetime, ...]:
    """The instants that an ISO 8601 time can mean: one, or two where it is local and happened twice.

    Args:
        text: with an offset, `Z`, or local.
        zone: where a time without offset is local; None where there are none such.

    Raises:
        TimeError: no ISO time, a local one without a zone, or one that the clock skipped.
    """
    try:
        moment = _from_iso(text)
        if moment.tzinfo is not None:
            return (moment.astimezone(UTC),)
    except (ValueError, OverflowError):
        raise TimeError("no ISO 8601 time") from None
    if zone is None:
        raise TimeError("a time without offset, and no zone is set for this input")
    return _local(moment, zone)


@lru_cache(maxsize=4096)
def _local(moment: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    try:
        folds = [moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
        happened = [each for each in folds if each.astimezone(zone).replace(tzinfo=None) == moment]
    except OverflowError:
        raise TimeError("no ISO 8601 time") from None
    if not happened:
        raise TimeError(f"a time that the clocks of {zone.key} skipped")
    return tuple(dict.fromkeys(happened))


class CallTimes(NamedTuple):
    """When a call began, was answered (None: never) and ended."""

    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None


def told_apart(
    started: Sequence[datetime],
    answered: Sequence[datetime] | None,
    ended: Sequence[datetime] | None,
    *,
    seconds: int | None = None,
    answered_seconds: int | None = None,
    began_at: datetime | None = None,
) -> CallTimes:
    """The one reading of a call's times that its other facts allow.

    Args:
        started: candidates for the start; `answered`, `ended` likewise, None where it did not happen or is not said.
        answered: see above.
        ended: see above.
        seconds: whole seconds from start to end, as the record says.
        answered_seconds: whole seconds from answer to end, as the record says.
        began_at: when the call's first channel was made, to the second.

    Raises:
        TimeError: more than one reading is left, or none.
    """
    if len(started) == 1 and (answered is None or len(answered) == 1) and (ended is None or len(ended) == 1):
        return CallTimes(started[0], answered[0] if answered else None, ended[0] if ended else None)
    readings = [CallTimes(*each) for each in product(started, answered or (None,), ended or (None,))]
    left = [each for each in readings if _possible(each, seconds, answered_seconds)]
    if len(left) > 1 and began_at is not None:
        left = [each for each in left if abs(each.started_at - began_at) <= _start_tolerance]
    if len(left) != 1:
        raise TimeError("a local time that happened twice, and nothing in the record tells which one it was")
    return left[0]


def _possible(times: CallTimes, seconds: int | None, answered_seconds: int | None) -> bool:
    order = [each for each in times if each is not None]
    if order != sorted(order):
        return False
    return all(
        abs(actual - timedelta(seconds=told)) <= _rounding
        for actual, told in _durations(times, seconds, answered_seconds)
    )


def _durations(
    times: CallTimes, seconds: int | None, answered_seconds: int | None
) -> Iterator[tuple[timedelta, int]]:
    if times.ended_at is None:
        return
    if seconds is not None:
        yield times.ended_at - times.started_at, seconds
    if answered_seconds is not None and times.answered_at is not None:
        yield times.ended_at - times.answered_at, answered_seconds
