"""Which faults, in which order: drawn from a seed, so that the same seed plans the same campaign. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final, NamedTuple

WORKERS: Final = 3


class Point(NamedTuple):
    """A named point: a function of the product, by module and name, and whether it is met before or behind it."""

    name: str
    module: str
    function: str
    after: bool


POINTS: Final = (
    Point("finding its places", "pipeline.position_store", "ensure_position", after=True),
    Point("after decode", "pipeline.worker", "read", after=True),
    Point("after attribution", "pipeline.worker", "prepare_batch", after=True),
    Point("in the transaction, position moved", "rollup.posting_store", "move_positions", after=True),
    Point("in the transaction, ledger written", "pipeline.writing", "_post_usage", after=True),
    Point("in the transaction, sums added", "rollup.posting_store", "add_usage", after=True),
    Point("in the transaction, all written", "rollup.posting_store", "count", after=True),
    Point("between the commits", "pipeline.transport", "BatchConsumer.mark_durable", after=False),
    Point("in the resolver, before its rows", "pipeline.resolver_store", "delete_held", after=True),
    Point("in the resolver, all written", "pipeline.resolver", "_post", after=True),
    Point("in the closer, pinning", "rollup.boundary_store", "pin_boundaries", after=True),
    Point("in the closer, sealing", "rollup.months_store", "seal", after=True),
    Point("in the closer, closing", "rollup.close_store", "close", after=True),
    Point("in the relay, before sending", "pipeline.relay", "_publish", after=False),
    Point("in the relay, sent", "pipeline.relay", "_publish", after=True),
    Point("in the relay, marked", "rollup.outbox_store", "mark_published", after=True),
)
CLOSING: Final = tuple(
    point.name for point in POINTS if point.name.startswith(("in the closer", "in the relay"))
)
_ELSEWHERE: Final = tuple(point.name for point in POINTS if point.name not in CLOSING)
FROZEN_AT: Final = (
    "in the transaction, ledger written",
    "in the resolver, before its rows",
    "in the closer, sealing",
    "in the relay, sent",
    "in the transaction, position moved",
    "in the closer, closing",
    "between the commits",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong: its kind, to which worker or at which point, for how long, and the peace after it."""

    kind: str
    worker: int
    point: str | None
    seconds: float
    pause_seconds: float


_OTHERS: Final = (
    "freeze",
    "postgres killed",
    "connections cut",
    "freeze at point",
    "broker restarted",
    "Postgres unreachable",
    "lock held",
    "Kafka unreachable",
    "broker frozen",
)


def plan(seed: int, count: int) -> Sequence[Fault]:
    """So many kills, most of them at the named points in turn, and after every second one another kind of fault."""
    dice = random.Random(seed)  # noqa: S311 (repeatable, no secrets)
    points, frozen_at = _points(dice), cycle(FROZEN_AT)
    others = cycle(dice.sample(_OTHERS, len(_OTHERS)))
    faults = []
    for kill in range(count):
        anywhere = kill % (5 if count <= 2 * len(POINTS) else 2) == 0
        faults.append(_fault(dice, "kill", None) if anywhere else _fault(dice, "kill at point", next(points)))
        if kill % 2:
            other = next(others)
            faults.append(_fault(dice, other, next(frozen_at) if other == "freeze at point" else None))
    return tuple(faults)


def months_closed(faults: Sequence[Fault]) -> int:
    """How many months must close for all of it: one for each time that a close is met at all its points, or frozen."""
    killed = sum(fault.point == CLOSING[0] for fault in faults if fault.kind == "kill at point")
    return killed + sum(fault.point in CLOSING for fault in faults if fault.kind == "freeze at point")


def _points(dice: random.Random) -> Iterator[str]:
    """Every point in turn; those of a close follow one another, as one month comes past them."""
    while True:
        elsewhere = dice.sample(_ELSEWHERE, len(_ELSEWHERE))
        place = dice.randrange(len(elsewhere) + 1)
        yield from (*elsewhere[:place], *CLOSING, *elsewhere[place:])


def _fault(dice: random.Random, kind: str, point: str | None) -> Fault:
    return Fault(
        kind,
        dice.randrange(WORKERS),
        point,
        round(dice.uniform(1.0, 3.0), 2),
        round(dice.uniform(0.1, 0.6), 2),
    )
