"""Closing the months of a `tests.world.World`, and telling the world through Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson

from pipeline.closer import Closed, Waiting, close_month
from pipeline.settings import Settings
from schemas.periods import Period
from tests.world import World


class ReadToTheEnd:
    """A broker on which nothing lies beyond what the world has read."""

    def __init__(self, world: World) -> None:
        self._world = world

    def boundaries(self, topics: Iterable[str], at: datetime) -> Mapping[tuple[str, int], int]:  # noqa: ARG002 (the protocol)
        return self._world.logs.ends(list(topics))

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:  # noqa: ARG002 (the protocol)
        return {}


def try_to_close(world: World, month: str, settings: Settings | None = None) -> Closed | Waiting:
    return close_month(world.engine, settings or world.settings, ReadToTheEnd(world), Period.parse(month))


def close(world: World, month: str, settings: Settings | None = None) -> Closed:
    found = try_to_close(world, month, settings)
    assert isinstance(found, Closed), found
    return found


def bodies(world: World, month: str) -> dict[tuple[str, str | None], bytes]:
    """A month's statements, byte for byte, by account and tenant."""
    rows = world.query(
        "select a.code as account, t.code as tenant, s.body from statements s join accounts a on a.id = s.account_id "
        "left join tenants t on t.id = s.tenant_id where s.period = :period",
        period=Period.parse(month).first_day,
    )
    return {(row.account, row.tenant): bytes(row.body) for row in rows}


def lines(body: bytes) -> list[tuple[Any, ...]]:
    """What a statement counts: (class, month, late, attempts, cost) of each line."""
    return [
        (each["usage_class"], each["usage_period"], each["late"], each["attempts"], each["cost"])
        for each in orjson.loads(body)["lines"]
    ]
