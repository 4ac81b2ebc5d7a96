"""What goes into the ledger, and what makes it the same record again (L1, L2).

Rows of the ledger are carried by column, many at once (`UsageColumns`): all but their posting period, which only the posting
transaction knows (L5). What is asked of one alone is read from its `UsageRow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from struct import Struct
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.binary import (
    DAY_MICROSECONDS,
    Integers,
    day_number,
    day_of,
    instant_of,
    microseconds_each,
    number_of,
    numbers,
)
from schemas.columns import rows_at

_MIDNIGHT_MARGIN: Final = timedelta(minutes=5)
MIDNIGHT_HOURS: Final = frozenset({0, 23})
"""The hours of a UTC day that something nearby midnight can start in."""

Identity = bytes
"""A record's place in the ledger's unique index (L1): the UTC date it started on, as Postgres counts it, and its key.

Twenty bytes that sort as the index does; made by `identity_of`.
"""


# The columns of a ledger row but for its posting period, in the order of `UsageRow.line`.
_NUMBERS: Final = (
    *("started_date", "key", "content"),
    *("account_id", "tenant_id", "assignment_id", "tariff_id"),
    *("started_at", "answered_at", "ended_at"),
    *("answered", "answered_seconds", "billed_seconds", "cost"),
    *("received_at", "position_id", "kafka_offset"),
)
_TEXTS: Final = (
    *("rule", "reason", "header_ignored", "usage_class", "currency"),
    *("switch", "service", "direction"),
    *("record_id", "call_id", "from_number", "to_number", "source_ip", "x_tenant"),
)
LEDGER_COLUMNS: Final = (*_NUMBERS, *_TEXTS)
_LENGTH_BYTES: Final = 4


class Standing(Protocol):
    """Why a record stands where it stands: what attribution decided, and by which assignment.

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


class Tally(NamedTuple):
    """What monthly usage adds up by, beside whose it is and when it was."""

    usage_class: str
    currency: str


class UsageRow(msgspec.Struct, frozen=True, gc=False):
    """One record as the ledger keeps it; `line` is what is copied of it, made by rollup/ledger_rows.py.

    Beside it stand the facts that a posting transaction asks for. Amounts are whole millionths (schemas/amounts.py).
    """

    identity: Identity
    content: bytes
    payer: Payer
    answered: bool
    answered_millionths: int
    billed_seconds: int
    cost_millionths: int
    started_at: datetime
    position_id: int
    kafka_offset: int
    line: bytes

    @property
    def switch(self) -> str:
        """The switch that told it."""
        return self._text("switch")

    @property
    def record_id(self) -> str:
        """The switch's own id of it."""
        return self._text("record_id")

    def _text(self, column: str) -> str:
        """A text in the row, not one that can be null: each field has its length before it, -1 for null."""
        first = 0
        for _ in range(LEDGER_COLUMNS.index(column) + 1):
            at = first + _LENGTH_BYTES
            first = at + max(int.from_bytes(self.line[first:at], "big", signed=True), 0)
        return self.line[at:first].decode()


class UsageColumns(NamedTuple):
    """Rows of the ledger by column, as `UsageRow` has them one by one; never changed.

    `identities`, `contents`: as bytes of fixed width. `account_ids`, `tenant_ids`: `NEVER` for none.
    `started`: microseconds since `schemas.binary.EPOCH`.
    """

    identities: NDArray[np.void]
    contents: NDArray[np.void]
    account_ids: Integers
    tenant_ids: Integers
    tallies: Sequence[Tally]
    answered: NDArray[np.bool_]
    answered_millionths: Integers
    billed_seconds: Integers
    cost_millionths: Integers
    started: Integers
    position_ids: Integers
    kafka_offsets: Integers
    lines: Sequence[bytes]

    @classmethod
    def of(cls, rows: Sequence[UsageRow]) -> UsageColumns:
        """The columns of some rows, in their order."""
        return cls(
            np.array([each.identity for each in rows], dtype=IDENTITY_BYTES),
            np.array([each.content for each in rows], dtype=CONTENT_BYTES),
            numbers([each.payer.account_id for each in rows]),
            numbers([each.payer.tenant_id for each in rows]),
            [Tally(each.payer.usage_class, each.payer.currency) for each in rows],
            np.array([each.answered for each in rows], dtype=np.bool_),
            numbers([each.answered_millionths for each in rows]),
            numbers([each.billed_seconds for each in rows]),
            numbers([each.cost_millionths for each in rows]),
            microseconds_each([each.started_at for each in rows]),
            numbers([each.position_id for each in rows]),
            numbers([each.kafka_offset for each in rows]),
            [each.line for each in rows],
        )

    @property
    def records(self) -> int:
        """How many rows there are."""
        return len(self.identities)

    def row(self, place: int) -> UsageRow:
        """One row."""
        return rows_at(self, [place]).rows()[0]

    def rows(self) -> list[UsageRow]:
        """Each row."""
        owners = zip(self.account_ids.tolist(), self.tenant_ids.tolist(), self.tallies, strict=True)
        return list(
            map(
                UsageRow,
                self.identities.tolist(),
                self.contents.tolist(),
                [Payer(number_of(account), number_of(tenant), *tally) for account, tenant, tally in owners],
                self.answered.tolist(),
                self.answered_millionths.tolist(),
                self.billed_seconds.tolist(),
                self.cost_millionths.tolist(),
                map(instant_of, self.started.tolist()),
                self.position_ids.tolist(),
                self.kafka_offsets.tolist(),
                self.lines,
            )
        )


identity_bytes: Final = 20
IDENTITY_BYTES: Final = np.dtype("V20")
CONTENT_BYTES: Final = np.dtype("V16")
IDENTITY_FIELDS: Final = np.dtype([("date", ">i4"), ("key", "V16")])
_ORDERED: Final = np.dtype([("date", ">i4"), ("key", ">u8"), ("rest", "V8")])  # of an identity
_IDENTITY: Final = Struct(">i16s").pack
_DATE: Final = Struct(">i").unpack_from


def identity_of(started_date: date, key: bytes) -> Identity:
    """The identity of a key and the date it started on."""
    return _IDENTITY(day_number(started_date), key)


def date_of(identity: Identity) -> date:
    """The date in an identity."""
    return day_of(_DATE(identity)[0])


def key_of(identity: Identity) -> str:
    """The key in an identity, as 32 hexadecimal digits."""
    return identity[4:].hex()


def in_order(identities: NDArray[np.void]) -> tuple[Integers, Integers]:
    """The places of identities in the order of the ledger's index, and the places of those that may be there twice.

    Told by half of each key: identities that share the date and that half are left in any order.
    """
    fields = identities.view(_ORDERED)
    date, key = fields["date"].astype(np.int32), short_keys(identities)
    order: Integers = np.lexsort((key, date))
    date, key = date[order], key[order]
    as_next = (date[1:] == date[:-1]) & (key[1:] == key[:-1])
    alike = np.zeros(len(order), dtype=np.bool_)
    alike[1:] = as_next
    alike[:-1] |= as_next
    return order, order[alike]


def short_keys(identities: NDArray[np.void]) -> NDArray[np.uint64]:
    """The first half of each identity's key: enough to guess by."""
    return identities.view(_ORDERED)["key"].astype(np.uint64)


def nearby_midnight(started_at: datetime) -> date | None:
    """The date that begins at the UTC midnight within five minutes of an instant, if there is one (L1)."""
    after = (started_at + _MIDNIGHT_MARGIN).date()
    return after if after != (started_at - _MIDNIGHT_MARGIN).date() else None


def nearby_midnights(started: Integers) -> NDArray[np.bool_]:
    """For which instants `nearby_midnight` finds one."""
    margin = _MIDNIGHT_MARGIN // timedelta(microseconds=1)
    near: NDArray[np.bool_] = (started + margin) // DAY_MICROSECONDS != (started - margin) // DAY_MICROSECONDS
    return near
