"""What was asked of Stripe, step by step (I7).

Each outside step is a row, written before the call with the idempotency key it will use, and again after it with
Stripe's id. Whoever resumes an invoice uses the stored ids, and the stored keys while they can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from invoicing.store import InvoiceRow

# Stripe keeps a key for at least 24 h; one older than this may have been forgotten, and then it protects nothing (I7).
KEY_TRUST: Final = timedelta(hours=23)
# A request sent under it at the last moment may still be under way: only then do Stripe's lists say all that was done.
KEY_REST: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Step:
    """One outside step: `result` is Stripe's id once `done`."""

    name: str
    idempotency_key: str
    intended_at: datetime
    result: str | None


def intend(connection: Connection, row: InvoiceRow, names: Iterable[str], now: datetime) -> dict[str, Step]:
    """Write down the steps about to be taken, each with its idempotency key; what was written before stands.

    Gives these steps as they are now written.
    """
    keys = {_step(row, name): _key(row, name, 1) for name in names}
    connection.execute(
        text(
            "insert into invoice_steps (invoice_id, step, idempotency_key, intended_at) "
            "values (:id, :step, :key, :now) on conflict (invoice_id, step) do nothing"
        ),
        [{"id": row.id, "step": step, "key": key, "now": now} for step, key in keys.items()],
    )
    return steps(connection, row, list(keys))


def steps(connection: Connection, row: InvoiceRow, only: list[str] | None = None) -> dict[str, Step]:
    """The steps of the invoice's present generation, by name; `only` those of these stored names."""
    rows = connection.execute(
        text(
            "select step, idempotency_key, intended_at, result from invoice_steps "
            "where invoice_id = :id and step like :prefix "
            "and (cast(:only as text[]) is null or step = any(cast(:only as text[])))"
        ),
        {"id": row.id, "prefix": f"{row.generation}.%", "only": only},
    )
    found = (
        Step(each.step.split(".", 1)[1], each.idempotency_key, each.intended_at, each.result) for each in rows
    )
    return {step.name: step for step in found}


def perhaps_scheduled(connection: Connection, row: InvoiceRow) -> bool:
    """Whether Stripe may have been told to send the present draft, for all that we know."""
    return any(name.startswith("schedule:") for name in steps(connection, row))


def finish_step(connection: Connection, row: InvoiceRow, step: Step, result: str, now: datetime) -> bool:
    """Write down Stripe's id for a step. False: someone else finished it, or took another key."""
    finished = connection.execute(
        text(
            "update invoice_steps set done_at = :now, result = :result "
            "where invoice_id = :id and step = :step and idempotency_key = :key and done_at is null"
        ),
        {
            "id": row.id,
            "step": _step(row, step.name),
            "key": step.idempotency_key,
            "result": result,
            "now": now,
        },
    )
    return finished.rowcount == 1


def renew_key(connection: Connection, row: InvoiceRow, step: Step, now: datetime) -> Step | None:
    """Give an unfinished step a fresh idempotency key. None: someone else did, or finished it."""
    tried = int(step.idempotency_key.rsplit(".", 1)[1])
    fresh = _key(row, step.name, tried + 1)
    renewed = connection.execute(
        text(
            "update invoice_steps set idempotency_key = :fresh, intended_at = :now "
            "where invoice_id = :id and step = :step and idempotency_key = :key and done_at is null"
        ),
        {
            "id": row.id,
            "step": _step(row, step.name),
            "key": step.idempotency_key,
            "fresh": fresh,
            "now": now,
        },
    )
    return Step(step.name, fresh, now, None) if renewed.rowcount else None


def distrust_keys(connection: Connection, row: InvoiceRow, now: datetime) -> None:
    """Make unfinished steps find out what was done and take a fresh key: the old one may replay its refusal."""
    connection.execute(
        text("update invoice_steps set intended_at = :long_ago where invoice_id = :id and done_at is null"),
        {"id": row.id, "long_ago": now - KEY_TRUST - KEY_REST},
    )


def _step(row: InvoiceRow, name: str) -> str:
    return f"{row.generation}.{name}"


def _key(row: InvoiceRow, name: str, tried: int) -> str:
    return f"{row.id}.{row.generation}.{name}.{tried}"
