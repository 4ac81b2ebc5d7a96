"""Where an invoice stands, and which moves there are. The README draws it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where an invoice stands."""

    RECEIVED = "received"
    DRAFTING = "drafting"
    DRAFTED = "drafted"
    SCHEDULED = "scheduled"
    SENT = "sent"
    ASSUMED_SENT = "assumed_sent"
    NOT_BILLED = "not_billed"
    NOTHING_TO_BILL = "nothing_to_bill"
    BLOCKED = "blocked"
    HELD = "held"
    FAILED = "failed"
    FINALIZATION_FAILED = "finalization_failed"
    DELETED = "deleted"


AWAITED: Final = (State.SCHEDULED, State.FINALIZATION_FAILED)
