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


def due_step(state: State, open_step: str | None) -> str | None:
    """What is done next with an invoice; None: nothing, until someone does something.

    `open_step` is the first outside step that was intended and is not done.
    """
    match state:
        case State.RECEIVED:
            return "decide"
        case State.DRAFTING:
            return open_step or "draft"
        case State.DRAFTED:
            return "compare and schedule"
        case State.SCHEDULED:
            return "Stripe sends it, then read it"
        case State.FINALIZATION_FAILED:
            return "read it again"
        case _:
            return None
