"""Whose calls are, by column: what attribution decides and the ledger keeps."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.binary import NEVER, Integers


class Grounds(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """Why a record stands where it stands: by which rule, why without a tenant, and which other name was ignored (A4)."""

    rule: str
    reason: str | None = None
    header_ignored: str | None = None


class Standings(NamedTuple):
    """Whose each call is, by which assignment, and on which `Grounds`; `NEVER` where it is nobody's, or no tenant's."""

    account_ids: Integers
    tenant_ids: Integers
    assignment_ids: Integers
    grounds: NDArray[np.object_]

    @classmethod
    def nobodys(cls, records: int) -> Standings:
        """So many calls that nobody owns, for no reason yet."""
        account_ids, tenant_ids, assignment_ids = np.full((3, records), NEVER)
        return cls(account_ids, tenant_ids, assignment_ids, np.empty(records, dtype=np.object_))
