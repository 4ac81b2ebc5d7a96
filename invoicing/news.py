"""What a statement-closed event says, or why it cannot be taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

import orjson
from pydantic import ValidationError

from schemas.events import STATEMENT_CLOSED, StatementClosed

DETAIL_CHARACTERS_MAX: Final = 500

RefusalReason = Literal["unknown_version", "malformed", "no_such_statement", "other_bytes"]


@dataclass(frozen=True, slots=True)
class StatementNews:
    """This statement closed; its canonical bytes have this SHA-256."""

    statement_id: UUID
    sha256: str


@dataclass(frozen=True, slots=True)
class RefusedNews:
    """An event that cannot be taken: of a version we do not know, unreadable, or at odds with our statements."""

    reason: RefusalReason
    detail: str


def read_news(headers: Mapping[str, bytes | None], value: bytes | None) -> StatementNews | RefusedNews:
    """Read an event in CloudEvents binary mode; without a `ce_type` the data alone decides."""
    event_type = (headers.get("ce_type") or STATEMENT_CLOSED.encode()).decode("utf-8", "replace")
    if event_type != STATEMENT_CLOSED:
        return _refused("unknown_version", f"event type {event_type}")
    try:
        data = orjson.loads(value or b"")
        version = data.get("version") if isinstance(data, dict) else None
        if isinstance(version, int) and version != 1:
            return _refused("unknown_version", f"version {version}")
        event = StatementClosed.model_validate(data)
        return StatementNews(UUID(event.statement_id), event.sha256)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return _refused("malformed", wrong)
    except ValueError as error:
        return _refused("malformed", str(error))


def _refused(reason: RefusalReason, detail: str) -> RefusedNews:
    """A refusal that can be stored: Postgres holds no NUL, and an event that could not be stored would come for ever."""
    return RefusedNews(reason, detail.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:DETAIL_CHARACTERS_MAX])
