"""Tariffs in the database: making one, and loading those that stood at an instant.

A tariff works from its `effective_at`. Once the installation runs it may reach back only into time in which the
account had none for the class: what was rated stays rated.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, text

from rollup.tariffs import Tariff, Tariffs, TariffUnit
from schemas.periods import utc_text

# A day at this price a minute, in millionths, is still within 64 bits: what a record costs must have a row's form.
tariff_cost_max: Final = 1_000_000_000


class TariffRefusedError(ValueError):
    """A tariff that may not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class NewTariff:
    """A tariff before it has an id; fields as in `Tariff`."""

    account_id: int
    usage_class: str
    effective_at: datetime
    unit: TariffUnit
    cost: Decimal
    prefix: str = ""
    increment_first_seconds: int = 1
    increment_next_seconds: int = 1


def add_tariff(connection: Connection, made_at: datetime, tariff: NewTariff) -> int:
    """Make a tariff, inside a change transaction (A7).

    Args:
        connection: in a transaction that holds the directory's lock.
        made_at: the instant that the directory's clock gave this change.
        tariff: what to make.

    Returns:
        Its id.

    Raises:
        TariffRefusedError: it would change what was rated before `made_at`, or that very tariff exists.
    """
    _refuse_malformed(tariff)
    _refuse_conflict(connection, made_at, tariff)
    made = connection.execute(
        text(
            "insert into tariffs (account_id, usage_class, prefix, effective_at, unit, cost, "
            "increment_first_seconds, increment_next_seconds, made_at) values (:account_id, :usage_class, :prefix, "
            ":effective_at, :unit, :cost, :first, :next, :made_at) returning id"
        ),
        {
            "account_id": tariff.account_id,
            "usage_class": tariff.usage_class,
            "prefix": tariff.prefix,
            "effective_at": tariff.effective_at,
            "unit": tariff.unit,
            "cost": tariff.cost,
            "first": tariff.increment_first_seconds,
            "next": tariff.increment_next_seconds,
            "made_at": made_at,
        },
    )
    return int(made.scalar_one())


def load_tariffs(connection: Connection, as_of: datetime) -> Tariffs:
    """Every tariff made up to an instant that the directory's fence gave (A7)."""
    return Tariffs(tariff_rows(connection, as_of))


def tariff_rows(connection: Connection, as_of: datetime, account_id: int | None = None) -> list[Tariff]:
    """The tariffs made up to an instant, of one account or of all, in the order they take effect."""
    rows = connection.execute(
        text(
            "select id, account_id, usage_class, prefix, effective_at, unit, cost, increment_first_seconds, "
            "increment_next_seconds from tariffs where made_at <= :as_of "
            "and (cast(:account_id as bigint) is null or account_id = :account_id) "
            "order by account_id, usage_class, prefix, effective_at"
        ),
        {"as_of": as_of, "account_id": account_id},
    )
    return [Tariff(*row) for row in rows]


def _refuse_malformed(tariff: NewTariff) -> None:
    if not tariff.usage_class:
        raise TariffRefusedError("a tariff needs a usage class")
    if tariff.prefix and not (tariff.prefix.isascii() and tariff.prefix.isdigit()):
        raise TariffRefusedError(f"prefix {tariff.prefix!r} must be digits only, without plus sign")
    if tariff.cost < 0:
        raise TariffRefusedError("a tariff's cost may not be negative")
    if tariff.cost > tariff_cost_max:
        raise TariffRefusedError(f"a tariff's cost may not be more than {tariff_cost_max:,}")
    if min(tariff.increment_first_seconds, tariff.increment_next_seconds) < 1:
        raise TariffRefusedError("increments are whole seconds, at least 1")


def _refuse_conflict(connection: Connection, made_at: datetime, tariff: NewTariff) -> None:
    standing = [
        each
        for each in tariff_rows(connection, made_at, tariff.account_id)
        if each.usage_class == tariff.usage_class
    ]
    if any(each.prefix == tariff.prefix and each.effective_at == tariff.effective_at for each in standing):
        raise TariffRefusedError(f"{_named(tariff)} exists already")
    if tariff.effective_at >= made_at or not _running(connection):
        return
    followed_at = min(
        (
            each.effective_at
            for each in standing
            if each.prefix == tariff.prefix and each.effective_at > tariff.effective_at
        ),
        default=made_at,
    )
    rated_by = [each for each in standing if each.effective_at < min(followed_at, made_at)]
    if rated_by:
        raise TariffRefusedError(
            f"{_named(tariff)} reaches into the past, where tariff {rated_by[0].id} (from "
            f"{utc_text(rated_by[0].effective_at)}) has rated already: let it take effect from now on"
        )


def _running(connection: Connection) -> bool:
    return bool(connection.scalar(text("select state = 'running' from installation")))


def _named(tariff: NewTariff) -> str:
    prefix = f" to {tariff.prefix}" if tariff.prefix else ""
    return f"the tariff for {tariff.usage_class}{prefix} from {utc_text(tariff.effective_at)}"
