"""Was it posted lately: a bounded memory that tells likely duplicates from what is surely new."""

from __future__ import annotations

from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rollup.ledger import short_keys

recent_identities_max: Final = 400_000


class RecentIdentities:
    """A bounded memory of identities posted lately: what it knows is probably a duplicate, and is looked up.

    Two generations of sorted short keys, so that forgetting costs nothing; what it has forgotten the unique index still stops.
    `doubtful`: the last batch met rows that it knew nothing of (a restart, resends that reach another worker), so the next is
    merged. `replaying`: most of the batch did, so the next is looked up whole.
    """

    def __init__(self, size_max: int = recent_identities_max) -> None:
        self._size_max = size_max // 2
        self._new = self._old = np.empty(0, dtype=np.uint64)
        self._adding = Lock()
        self.doubtful = self.replaying = False

    def known(self, identities: NDArray[np.void]) -> NDArray[np.bool_]:
        """Which of some identities are probably in the ledger."""
        keys = short_keys(identities)
        known: NDArray[np.bool_] = _among(keys, self._new) | _among(keys, self._old)
        return known

    def surprised(self, records: int, of: int) -> None:
        """So many of a batch's records were in the ledger, and not known to be."""
        self.doubtful = records > 0
        self.replaying = records * 2 > of

    def add(self, identities: NDArray[np.void]) -> None:
        """Remember identities that have been committed."""
        with self._adding:
            self._new = np.sort(np.concatenate((self._new, short_keys(identities))), kind="stable")
            if len(self._new) > self._size_max:
                self._old, self._new = self._new, self._new[:0]


def _among(keys: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which keys are among those that are known, which are sorted."""
    if not len(known):
        return np.zeros(len(keys), dtype=np.bool_)
    found: NDArray[np.bool_] = known[np.minimum(known.searchsorted(keys), len(known) - 1)] == keys
    return found
