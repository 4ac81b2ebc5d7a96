"""The sandbox's own clock, which tests move: Stripe's time is not ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class MovableClock:
    """Runs on from wherever it was last set; starts at the present."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def now(self) -> datetime:
        """The sandbox's present instant."""
        return datetime.now(UTC) + self._ahead  # noqa: TID251 (a server of its own, with a clock of its own)

    def timestamp(self) -> int:
        """The present instant in whole Unix seconds, as Stripe tells times."""
        return int(self.now().timestamp())

    def set(self, now: datetime) -> None:
        """Make it that instant."""
        self._ahead += now - self.now()
