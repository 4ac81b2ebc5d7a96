"""The one home of the worker's clock; nothing that money depends on is decided by it (A7, L3)."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present instant, aware, UTC."""
    return datetime.now(UTC)  # noqa: TID251 (its one home)
