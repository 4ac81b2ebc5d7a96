"""Where a worker's processor time goes, from a message's bytes to the rows handed to Postgres: stage by stage.

Each stage runs alone over the same batches, in this process, while nothing else does; times are processor time.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from attribution.attribute import InputRules, attribute_each
from deploy.bench.rig import Rig
from pipeline import worker
from pipeline.clock import utc_now
from pipeline.prepare import InputSpec, Message, decode, prepare
from pipeline.snapshot import Snapshots
from pipeline.writing import sorted_out
from rollup.ledger import sums_of
from rollup.ledger_rows import content_ids
from rollup.plausible import implausible
from rollup.posting_store import ledger_rows
from rollup.rate import rate
from schemas.formats import Format
from schemas.identity import record_digests
from schemas.records import CallRecord

_BATCH: Final = 4000
_REPEATS: Final = 5


def stage_costs(values: Sequence[bytes], rig: Rig) -> dict[str, float]:
    """Microseconds a record by stage, and `worker_cpu_us_per_event`: all of them."""
    with rig.database(1000) as engine:
        snapshot = Snapshots(engine).refresh()
    rules = InputRules(sip_context=False, home_country="US", edge_addresses=frozenset())
    spec = InputSpec(1, "calls", Format(), rules, timedelta(minutes=5))
    now, month = utc_now(), rig.period.first_day
    messages = [Message(offset, now, None, value) for offset, value in enumerate(values)]
    batches = [messages[first : first + _BATCH] for first in range(0, len(messages), _BATCH)]
    gc.collect()
    gc.freeze()
    gc.set_threshold(worker.collect_after_objects)  # as a worker does

    decoded, decoding = _timed(lambda batch: decode(spec, batch), batches)
    calls = [[what for _, what in batch if isinstance(what, CallRecord)] for batch in decoded]
    attributed, attributing = _timed(lambda batch: attribute_each(batch, snapshot.directory, rules), calls)
    terms = {account.id: snapshot.terms[account.id] for account in snapshot.directory.accounts()}
    ours = terms[next(iter(terms))]
    _, judging = _timed(
        lambda batch: [
            (implausible(each, ours, now, snapshot.oldest), rate(each, ours, snapshot.tariffs))
            for each in batch
        ],
        calls,
    )
    _, identifying = _timed(
        lambda batch: (record_digests((each.switch, each.id) for each in batch), content_ids(batch)), calls
    )
    prepared, preparing = _timed(lambda batch: prepare(spec, batch, snapshot), decoded)
    sorted_, sorting = _timed(lambda batch: sorted_out(batch, Counter()), prepared)
    rows = [[rows.usage[identity] for identity in sorted(rows.usage)] for rows in sorted_]
    _, ordering = _timed(lambda each: [each.usage[identity] for identity in sorted(each.usage)], sorted_)
    _, writing = _timed(lambda batch: b"".join(ledger_rows(batch, {month: month})), rows)
    _, adding = _timed(lambda batch: sums_of(batch, {month: month}), rows)
    gc.unfreeze()
    del attributed
    stages = {
        "stage_decode": decoding,
        "stage_attribute": attributing,
        "stage_class_and_cost": judging,
        "stage_identity": identifying,
        "stage_rows": preparing - attributing - judging - identifying + sorting + ordering + writing,
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
