"""Which month is it.

A period is one UTC calendar month, half-open. No other length exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

_PERIOD_TEXT = re.compile(r"(\d{4})-(\d{2})")


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """One UTC calendar month, written `2026-10`; holds every instant in [`starts_at`, `ends_at`)."""

    year: int
    month: int

    def __post_init__(self) -> None:
        if not (1 <= self.month <= 12 and 1970 <= self.year <= 9998):
            raise ValueError(f"no such month: {self.year}-{self.month}")

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read `2026-10`.

        Raises:
            ValueError: the text is not a year and a month.
        """
        match = _PERIOD_TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a month; write it as 2026-10")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, moment: datetime | date) -> Period:
        """The month that an aware instant (in UTC) or a date falls in."""
        if isinstance(moment, datetime):
            moment = moment.astimezone(UTC)
        return cls(moment.year, moment.month)

    @property
    def first_day(self) -> date:
        """The month's first date, how a period is stored in the database."""
        return date(self.year, self.month, 1)

    @property
    def starts_at(self) -> datetime:
        """The first instant of the month, UTC."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def ends_at(self) -> datetime:
        """The first instant after the month, UTC."""
        return self.next().starts_at

    @property
    def last_day(self) -> date:
        """The month's last date."""
        return self.next().first_day - timedelta(days=1)

    def next(self) -> Period:
        """The month after this one."""
        return self.plus(1)

    def plus(self, months: int) -> Period:
        """The month so many months later (earlier when negative)."""
        years, month = divmod(self.month - 1 + months, 12)
        return Period(self.year + years, month + 1)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"


def utc_text(moment: datetime) -> str:
    """An aware instant as RFC 3339 in UTC with microseconds and `Z`: one instant, one text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
