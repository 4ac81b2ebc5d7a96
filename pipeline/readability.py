"""Can a topic still be read: the share of its latest records that cannot, for those who would rather stop. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

window_records: Final = 1000


class TooManyUnreadableError(RuntimeError):
    """More of a topic's latest records cannot be read than the setting `unreadable_share_max` allows."""


class Readability:
    """The latest records of one topic, as one worker reads it: how many of them could be read."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, int]] = deque()
        self._records = self._unreadable = 0

    def look(self, records: int, unreadable: int, share_max: float) -> None:
        """Look at a batch before anything of it is written; fewer than `window_records` are too few to judge.

        Raises:
            TooManyUnreadableError: the batch, with those before it that make up the window, goes over `share_max`.
        """
        self._batches.append((records, unreadable))
        self._records += records
        self._unreadable += unreadable
        while self._records - self._batches[0][0] >= window_records:
            old, old_unreadable = self._batches.popleft()
            self._records -= old
            self._unreadable -= old_unreadable
        if self._records >= window_records and self._unreadable > share_max * self._records:
            raise TooManyUnreadableError(
                f"{self._unreadable} of the latest {self._records} records cannot be read, more than "
                f"{share_max:.0%}; nothing of this batch was written"
            )
