"""Where a worker's processor time goes, from a message's bytes to the rows handed to Postgres: stage by stage.

Each stage runs alone over the same batches, in this process, while nothing else does; times are processor time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import numpy as np

from attribution.attribute import InputRules, attribute_each
from deploy.bench.rig import Rig
from pipeline import worker
from pipeline.batch_rows import Part, sorted_out
from pipeline.clock import utc_now
from pipeline.ordinary import Messages, OrdinaryUsage, decide, read
from pipeline.prepare import InputSpec
from pipeline.snapshot import Snapshots
from rollup.ledger_rows import content_columns, usage_columns
from rollup.posting_store import ledger_rows
from rollup.sums import sums_of
from schemas.binary import microseconds
from schemas.formats import Format
from schemas.identity import record_digests

_PIECES: Final = 8  # in a transaction
_REPEATS: Final = 5


def stage_costs(values: Sequence[bytes], rig: Rig) -> dict[str, float]:
    """Microseconds a record by stage, and `worker_cpu_us_per_event`: all of them."""
    with rig.database(1000) as engine:
        snapshot = Snapshots(engine).refresh()
    rules = InputRules(sip_context=False, home_country="US", edge_addresses=frozenset())
    spec = InputSpec(1, "calls", Format(), rules, timedelta(minutes=5))
    now, month = microseconds(utc_now()), rig.period.first_day
    pieces = [
        Messages(np.arange(first, first + len(piece)), np.full(len(piece), now), [None] * len(piece), piece)
        for first in range(0, len(values), worker.piece_records)
        for piece in [values[first : first + worker.piece_records]]
    ]
    gc.collect()
    gc.freeze()
    gc.set_threshold(worker.collect_after_objects)  # as a worker does

    told, decoding = _timed(lambda piece: read(spec, piece), pieces)
    _, attributing = _timed(lambda piece: attribute_each(piece.calls, snapshot.directory, rules), told)
    decided, deciding = _timed(lambda piece: decide(spec, piece, snapshot), told)
    _, identifying = _timed(
        lambda each: (
            record_digests(zip(each.calls.switches, each.calls.ids, strict=True)),
            content_columns(each.calls),
        ),
        decided,
    )
    prepared, preparing = _timed(
        lambda each: OrdinaryUsage(usage_columns(each.calls, each.decisions), each.messages), decided
    )
    together = [prepared[first : first + _PIECES] for first in range(0, len(prepared), _PIECES)]
    batches, joining = _timed(OrdinaryUsage.joined, together)
    sorted_, sorting = _timed(lambda batch: sorted_out([Part(spec.position_id, [], batch)]), batches)
    _, writing = _timed(lambda rows: b"".join(ledger_rows(rows.usage, rows.order, {month: month})), sorted_)
    _, adding = _timed(lambda rows: sums_of(rows.usage, rows.order, {month: month}), sorted_)
    gc.unfreeze()
    stages = {
        "stage_decode": decoding,
        "stage_attribute": attributing,
        "stage_class_and_cost": deciding - attributing,
        "stage_identity": identifying,
        "stage_rows": preparing - identifying + joining + sorting + writing,
        "stage_aggregates": adding,
    }
    scale = 1e6 / len(values)
    costs = {name: seconds * scale for name, seconds in stages.items()}
    return {**costs, "worker_cpu_us_per_event": sum(costs.values())}


def _timed(stage: Callable[[Any], Any], batches: Sequence[Any]) -> tuple[list[Any], float]:
    """What a stage makes of each batch, and its processor time over all of them: the least of `_REPEATS`."""
    seconds = []
    for _ in range(_REPEATS):
        started = time.process_time()
        for batch in batches:
            stage(batch)
        seconds.append(time.process_time() - started)
    return [stage(batch) for batch in batches], min(seconds)
