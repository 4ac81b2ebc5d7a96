"""Which profile bills a statement, and on which day the invoice goes out (I1).

Billing is in arrears: what decides is the month in which the statement was generated, never the usage's own. A
profile made on 15 May for day 20 meets its first statement (May's) in June, so its first invoice is 20 June's.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final

from invoicing.profile import BillingProfile

SENDING_HOUR: Final = time(12, tzinfo=UTC)
LAST_SECOND: Final = time(23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ProfileVersion:
    """A billing profile as it stood in [`made_at`, `ended_at`); `ended_at` is None for the present one.

    `tenant_ended_at`: from then on there is no tenant to ask for anything but its usage; None while it exists.
    """

    id: int
    made_at: datetime
    ended_at: datetime | None
    profile: BillingProfile
    tenant_ended_at: datetime | None = None


def version_in_force(versions: Sequence[ProfileVersion], generated_at: datetime) -> ProfileVersion | None:
    """The version a statement generated at that instant is billed by; None: it is not billed (I1)."""
    for version in versions:
        if version.made_at <= generated_at and (version.ended_at is None or generated_at < version.ended_at):
            return version
    return None


def send_instant(generated_at: datetime, billing_day: int) -> datetime:
    """When the invoice is to be sent: 12:00 UTC on the billing day of the month in which its statement was generated.

    Days 29 to 31 mean the last day of shorter months. A day already past means at once: the statement's own instant.
    """
    day = generated_at.astimezone(UTC).date()
    last_day = monthrange(day.year, day.month)[1]
    sending = datetime.combine(day.replace(day=min(billing_day, last_day)), SENDING_HOUR)
    return max(sending, generated_at)


def due_instant(sent_at: datetime, terms_days: int) -> datetime:
    """When a sent invoice is due: the end of the sending day (UTC) plus the terms (I4)."""
    return datetime.combine(sent_at.astimezone(UTC).date() + timedelta(days=terms_days), LAST_SECOND)
