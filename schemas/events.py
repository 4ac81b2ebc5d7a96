"""What the world is told when a month closes: `statements.closed` and `periods.closed`.

CloudEvents 1.0 over Kafka in binary mode: attributes are `ce_` headers, the value is the data. Subscribers
deduplicate by `ce_id`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from schemas.periods import utc_text
from schemas.statements import DecimalText, InstantText, Statement, StatementKind

STATEMENT_CLOSED: Final = "tenant-billing.statement.closed.v1"
PERIOD_CLOSED: Final = "tenant-billing.period.closed.v1"


class StatementClosed(BaseModel):
    """A statement became final. `sha256` is of the statement's canonical JSON, which `statement` repeats."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    statement_id: str
    kind: StatementKind
    account: str
    tenant: str | None
    period: str
    currency: str
    total_cost: DecimalText
    sha256: str
    closed_at: InstantText
    statement: Statement


class PeriodClosed(BaseModel):
    """All statements of one account for one period have been published: how many, and their total cost."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    account: str
    period: str
    currency: str
    statement_count: int
    total_cost: DecimalText
    closed_at: InstantText


def cloud_event_headers(event_id: str, event_type: str, subject: str, at: datetime) -> dict[str, str]:
    """The Kafka headers of an event in CloudEvents binary mode."""
    return {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": "/tenant-billing",
        "ce_type": event_type,
        "ce_subject": subject,
        "ce_time": utc_text(at),
        "content-type": "application/json",
    }
