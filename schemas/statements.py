"""What a statement says, and the bytes it is known by (C3).

A statement is one tenant's (or one account's unassigned) usage in one closed period. Its canonical JSON (sorted
keys, no blanks, UTF-8, amounts as strings) is stored once and hashed: the same facts give the same bytes.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, PlainSerializer

from schemas.money import plain
from schemas.periods import utc_text

RENDERER: Final = 1
StatementKind = Literal["tenant", "unassigned"]
DecimalText = Annotated[Decimal, PlainSerializer(plain, return_type=str)]
InstantText = Annotated[datetime, PlainSerializer(utc_text, return_type=str)]


class StatementLine(BaseModel):
    """Usage of one class that started in `usage_period`; `late` where that month is not the statement's own."""

    model_config = ConfigDict(frozen=True)

    usage_class: str
    usage_period: str
    late: bool
    attempts: int
    calls: int
    answered_seconds: DecimalText
    billed_seconds: int
    cost: DecimalText


class NumbersHeld(BaseModel):
    """Numbers held at the period's last instant, by class (`number_local`, `number_toll_free`)."""

    model_config = ConfigDict(frozen=True)

    usage_class: str
    count: int
    cost: DecimalText


class StatementTotals(BaseModel):
    """Sums over the lines (late ones included) and the numbers. `total_cost` = `usage_cost` + `number_cost`."""

    model_config = ConfigDict(frozen=True)

    attempts: int
    calls: int
    answered_seconds: DecimalText
    billed_seconds: int
    usage_cost: DecimalText
    number_cost: DecimalText
    total_cost: DecimalText


class Statement(BaseModel):
    """One tenant's month, or one account's unassigned month. Costs are what the carrier charges the account.

    `account` is the account's code; `tenant` is the tenant's Account ID, None for `kind` `unassigned`.
    """

    model_config = ConfigDict(frozen=True)

    statement_id: str
    kind: StatementKind
    account: str
    tenant: str | None
    tenant_name: str | None
    period: str
    currency: str
    lines: tuple[StatementLine, ...]
    numbers: tuple[NumbersHeld, ...]
    peak_concurrent_channels: int
    totals: StatementTotals
    as_of: InstantText
    renderer: int = RENDERER

    def canonical_bytes(self) -> bytes:
        """The statement's one serialised form."""
        return canonical_json(self)


def canonical_json(model: BaseModel) -> bytes:
    """A model as canonical JSON: sorted keys, no blanks, UTF-8."""
    return orjson.dumps(model.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)


def sha256_hex(body: bytes) -> str:
    """The lower-case hexadecimal SHA-256 of a statement's canonical bytes."""
    return hashlib.sha256(body).hexdigest()
