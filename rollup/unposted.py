"""Records that were received and are not in the ledger: what waits, what is kept aside, and what stands all the same (L2)."""

from __future__ import annotations

from datetime import date, datetime
from typing import NamedTuple

from rollup.ledger import Identity, UsageRow, date_of, key_of


class HeldRow(NamedTuple):
    """A record that waits; the fields behind `content` are columns of `held_records`, in the order they are copied."""

    identity: Identity
    content: bytes
    reason: str
    hold_until: datetime
    call_id: str | None
    switch: str
    record_id: str
    started_at: datetime
    received_at: datetime
    position_id: int
    kafka_offset: int
    value: bytes
    ordinal: int


class QuarantineRow(NamedTuple):
    """A record that could not be read or must not be posted; fields as columns of `quarantine`.

    The last three are set where it stands under its identity (`RefusedRow`).
    """

    position_id: int
    kafka_offset: int
    ordinal: int
    received_at: datetime
    reason: str
    detail: str
    account_id: int | None
    started_at: datetime | None
    key: bytes | None
    value: bytes | None
    started_date: date | None = None
    record_key: str | None = None
    content: str | None = None


class RefusedRow(NamedTuple):
    """A record that is refused for what its owner's terms say (currency, no tariff): in quarantine it stands (L2).

    Like one that waits, which may come to the same: so what its resends come to does not depend on which it was.
    """

    identity: Identity
    content: bytes
    switch: str
    record_id: str
    started_at: datetime
    position_id: int
    kafka_offset: int
    detained: QuarantineRow

    @property
    def kept(self) -> QuarantineRow:
        """The row of `quarantine`, with the identity it stands under."""
        return self.detained._replace(
            started_date=date_of(self.identity), record_key=key_of(self.identity), content=self.content.hex()
        )


Asked = UsageRow | HeldRow | RefusedRow
