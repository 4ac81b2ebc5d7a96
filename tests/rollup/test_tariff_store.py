"""Tariffs never change what was rated."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from rollup.tariff_store import NewTariff, TariffRefusedError, add_tariff, load_tariffs
from tests.rollup.builders import World, at

NOW = at("2026-10-10T12:00:00")
DAY = timedelta(days=1)


def add(
    connection: Connection, account_id: int, effective_at: datetime, made_at: datetime = NOW, **fields: Any
) -> int:
    new = NewTariff(account_id, "outbound_international", effective_at, "minute", Decimal("0.05"), **fields)
    return add_tariff(connection, made_at, new)


@pytest.fixture
def running_account(database: Engine) -> tuple[Engine, int]:
    with database.begin() as connection:
        world = World(connection)
        account_id = world.account()
        world.running()
    return database, account_id


def test_a_tariff_works_from_its_effective_instant(running_account: tuple[Engine, int]) -> None:
    engine, account_id = running_account
    with engine.begin() as connection:
        tariff_id = add(connection, account_id, NOW + DAY)
        tariffs = load_tariffs(connection, NOW)
    assert tariffs.in_force(account_id, "outbound_international", "442071838750", NOW) is None
    found = tariffs.in_force(account_id, "outbound_international", "442071838750", NOW + DAY)
    assert found is not None
    assert (found.id, found.cost) == (tariff_id, Decimal("0.050000"))


def test_a_load_knows_only_what_was_made_by_then(running_account: tuple[Engine, int]) -> None:
    engine, account_id = running_account
    with engine.begin() as connection:
        add(connection, account_id, NOW)
        tariffs = load_tariffs(connection, NOW - timedelta(microseconds=1))
    assert tariffs.in_force(account_id, "outbound_international", "44", NOW) is None


def test_a_missing_tariff_may_be_filled_in_for_the_past(running_account: tuple[Engine, int]) -> None:
    engine, account_id = running_account
    with engine.begin() as connection:
        add(connection, account_id, NOW - 10 * DAY)
        add(connection, account_id, NOW - 20 * DAY, prefix="")


def test_what_was_rated_by_a_tariff_cannot_be_rated_otherwise(running_account: tuple[Engine, int]) -> None:
    engine, account_id = running_account
    with engine.begin() as connection:
        add(connection, account_id, NOW - 10 * DAY)
        with pytest.raises(TariffRefusedError, match="rated already"):
            add(connection, account_id, NOW - 5 * DAY)
        with pytest.raises(TariffRefusedError, match="rated already"):
            add(connection, account_id, NOW - 20 * DAY, prefix="44")
        with pytest.raises(TariffRefusedError, match="exists already"):
            add(connection, account_id, NOW - 10 * DAY)
        add(connection, account_id, NOW, prefix="44")


def test_a_future_tariff_does_not_keep_the_past_from_being_filled(
    running_account: tuple[Engine, int],
) -> None:
    engine, account_id = running_account
    with engine.begin() as connection:
        add(connection, account_id, NOW + DAY)
        add(connection, account_id, NOW - DAY, prefix="44")


def test_before_the_installation_runs_any_history_may_be_written(database: Engine) -> None:
    with database.begin() as connection:
        account_id = World(connection).account()
        add(connection, account_id, NOW - 10 * DAY)
        add(connection, account_id, NOW - 5 * DAY)


@pytest.mark.parametrize(
    "wrong", [{"prefix": "+44"}, {"increment_first_seconds": 0}, {"increment_next_seconds": 0}]
)
def test_a_malformed_tariff_is_refused(running_account: tuple[Engine, int], wrong: dict[str, Any]) -> None:
    engine, account_id = running_account
    with engine.begin() as connection, pytest.raises(TariffRefusedError):
        add(connection, account_id, NOW, **wrong)


def test_a_tariff_costs_no_more_than_a_ledger_row_can_hold(running_account: tuple[Engine, int]) -> None:
    engine, account_id = running_account
    refused = NewTariff(account_id, "sms", NOW, "event", Decimal("1000000000.000001"))
    with engine.begin() as connection, pytest.raises(TariffRefusedError, match="more than 1,000,000,000"):
        add_tariff(connection, NOW, refused)
