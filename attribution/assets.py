"""What an account owns, and since when: accounts, tenants and assignments as the directory answers with them.

An assignment is in force in the half-open interval [`made_at`, `ended_at`). Inside the directory an instant is a
whole number of microseconds since 2000-01-01 UTC, as Postgres counts them: exact, and quick to compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.binary import EPOCH, microseconds
from schemas.network import Network

to_microseconds: Final = microseconds
FOREVER: Final = 2**63 - 1  # later than any instant: the `infinity` of Postgres


@dataclass(frozen=True, slots=True)
class Account:
    """The carrier's customer; `code` is its handle on the command line, `home_country` its dialling rules (A11)."""

    id: int
    code: str
    currency: str
    home_country: str
    domestic_regions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tenant:
    """A group of an account's assets; `code` is its Account ID, matched exactly. `ended_at` None: it exists still."""

    id: int
    account_id: int
    code: str
    made_at: datetime
    ended_at: datetime | None

    def existed(self, at: datetime) -> bool:
        """Whether the tenant existed at the instant."""
        return self.made_at <= at and (self.ended_at is None or at < self.ended_at)


@dataclass(frozen=True, slots=True)
class NumberAssignment:
    """A number in E.164 is an account's, and a tenant's unless `tenant_id` is None."""

    id: int
    number: str
    account_id: int
    tenant_id: int | None
    made_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class IpAssignment:
    """A network is an account's: dedicated to a tenant, or shared (`tenant_id` None) with an optional default (A4, A5)."""

    id: int
    network: Network
    account_id: int
    tenant_id: int | None
    default_tenant_id: int | None
    made_at: datetime
    ended_at: datetime | None

    @property
    def shared(self) -> bool:
        """Whether `X-Tenant` decides; an IP that was never given a tenant is shared."""
        return self.tenant_id is None


def end_microseconds(ended_at: datetime | None) -> int:
    """The end of an interval as microseconds; `FOREVER` where it has none."""
    return FOREVER if ended_at is None else to_microseconds(ended_at)


def to_instant(microseconds: int) -> datetime:
    """The instant that `to_microseconds` made the number of."""
    return EPOCH + timedelta(microseconds=microseconds)


def to_end(microseconds: int) -> datetime | None:
    """The end of an interval that `end_microseconds` made the number of."""
    return None if microseconds == FOREVER else to_instant(microseconds)
