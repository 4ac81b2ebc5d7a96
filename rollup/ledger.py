"""What goes into the ledger, and what makes it the same record again (L1, L2).

A `UsageRow` is one line of the ledger but for its posting period, which only the posting transaction knows (L5).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from struct import Struct
from typing import Final, NamedTuple, Protocol

import msgspec

from schemas.binary import day_number

_MIDNIGHT_MARGIN: Final = timedelta(minutes=5)
MIDNIGHT_HOURS: Final = frozenset({0, 23})
"""The hours of a UTC day that something nearby midnight can start in."""

Identity = bytes
"""A record's place in the ledger's unique index (L1): the UTC date it started on, as Postgres counts it, and its key.

Twenty bytes that sort as the index does; made by `identity_of`.
"""


class Standing(Hashable, Protocol):
    """Why a record stands where it stands: what attribution decided, and by which assignment; hashable.

    `account_id` None: nobody's. `tenant_id` None: the account's own, for `reason`. `header_ignored`: see A4.
    """

    @property
    def account_id(self) -> int | None: ...  # noqa: D102 (told above)
    @property
    def tenant_id(self) -> int | None: ...  # noqa: D102
    @property
    def rule(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str | None: ...  # noqa: D102
    @property
    def assignment_id(self) -> int | None: ...  # noqa: D102
    @property
    def header_ignored(self) -> str | None: ...  # noqa: D102


class Payer(NamedTuple):
    """Whose usage it is, and of which class: what monthly usage adds up by, within a month."""

    account_id: int | None
    tenant_id: int | None
    usage_class: str
    currency: str


class UsageRow(msgspec.Struct, frozen=True, gc=False):
    """One record as the ledger keeps it: `line` is what is copied of it, made by rollup/ledger_rows.py.

    Beside it stand the facts that a posting transaction asks for. `month`: the first day of the month it started in.
    """

    identity: Identity
    content: bytes
    month: date
    payer: Payer
    answered: bool
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal
    started_at: datetime
    switch: str
    record_id: str
    position_id: int
    kafka_offset: int
    line: bytes


identity_bytes: Final = 20
_IDENTITY: Final = Struct(">i16s").pack
_DATE: Final = Struct(">i").unpack_from
_POSTGRES_FIRST_DAY: Final = date(2000, 1, 1).toordinal()


def identity_of(started_date: date, key: bytes) -> Identity:
    """The identity of a key and the date it started on."""
    return _IDENTITY(day_number(started_date), key)


def date_of(identity: Identity) -> date:
    """The date in an identity."""
    return date.fromordinal(_DATE(identity)[0] + _POSTGRES_FIRST_DAY)


def key_of(identity: Identity) -> str:
    """The key in an identity, as 32 hexadecimal digits."""
    return identity[4:].hex()


class UsageGroup(NamedTuple):
    """What one row of monthly usage adds up, but for its writer's shard."""

    period: date
    usage_period: date
    account_id: int | None
    tenant_id: int | None
    usage_class: str
    currency: str


class UsageSums(NamedTuple):
    """The sums of one group; every record is an attempt, every answered one a call."""

    attempts: int
    calls: int
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal


def nearby_midnight(started_at: datetime) -> date | None:
    """The date that begins at the UTC midnight within five minutes of an instant, if there is one (L1)."""
    after = (started_at + _MIDNIGHT_MARGIN).date()
    return after if after != (started_at - _MIDNIGHT_MARGIN).date() else None


def sums_of(rows: Iterable[UsageRow], posting_period: Mapping[date, date]) -> dict[UsageGroup, UsageSums]:
    """Rows added up by group; `posting_period` says for each month of `started_at` where it is posted (L5)."""
    sums: dict[tuple[date, Payer], list[int | Decimal]] = {}
    for row in rows:
        total = sums.get((row.month, row.payer))
        if total is None:
            total = sums[row.month, row.payer] = [0, 0, Decimal(0), 0, Decimal(0)]
        total[0] += 1
        total[1] += row.answered
        total[2] += row.answered_seconds
        total[3] += row.billed_seconds
        total[4] += row.cost
    return {
        UsageGroup(posting_period[month], month, *payer): UsageSums(*total)  # type: ignore[arg-type]
        for (month, payer), total in sums.items()
    }
