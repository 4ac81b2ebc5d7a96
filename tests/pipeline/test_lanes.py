"""How a worker paces itself: small transactions ten times a second at most, large ones with a backlog, and no more than it has room for."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Final

import pytest
from faust.types import TP

from pipeline import worker
from pipeline.posting import PreparedBatch
from pipeline.settings import Settings
from pipeline.transport import RecordBatch
from pipeline.worker import Ingest
from tests.test_ordinary import ORDINARY, SNAPSHOT

CALLS: Final = TP("calls.raw", 0)
MILLISECONDS: Final = 1_793_491_500_000


class Posting:
    """Stands where the database is: notes when each transaction began, and how many records it had."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began: list[float] = []
        self.records: list[int] = []
        self.offsets: list[tuple[int, list[int], int]] = []

    def post(self, batch: PreparedBatch) -> Counter[tuple[str, str]]:
        self.began.append(time.monotonic())
        time.sleep(self.seconds)
        self.records.append(batch.records)
        self.offsets.append((batch.first_offset, batch.ordinary.messages.offsets.tolist(), batch.next_offset))
        return Counter({("posted", ""): batch.records})

    @property
    def at_once_max(self) -> int:
        """How many transactions were in the database at the same time, at most."""
        ends = [began + self.seconds for began in self.began]
        return max(
            sum(began <= at < end for began, end in zip(self.began, ends, strict=True)) for at in self.began
        )


def batches(number: int, records: int, behind: int, partition: int = 0) -> list[RecordBatch]:
    value = json.dumps(ORDINARY).encode()
    return [
        RecordBatch(
            TP(CALLS.topic, partition),
            first,
            first + records,
            [
                SimpleNamespace(offset=offset, timestamp=MILLISECONDS, key=None, value=value)
                for offset in range(first, first + records)
            ],
            1,
            behind,
        )
        for first in range(0, number * records, records)
    ]


async def ingested(posting: Posting, read: list[RecordBatch], every_seconds: float = 0.0) -> list[int]:
    """Let an agent read batches, one after the other; how many records it had taken when each transaction ended."""
    taken = 0
    taken_when_posted: list[int] = []
    settings = Settings(database_url="postgresql://nowhere/none", batch_records_max=50)
    consumer = SimpleNamespace(
        is_current=lambda _: True, mark_durable=lambda *_: taken_when_posted.append(taken)
    )
    app: Any = SimpleNamespace(
        batch_consumer=consumer, position_source=SimpleNamespace(id_of=lambda _: 1), should_stop=False
    )
    snapshots: Any = SimpleNamespace(current=SNAPSHOT)
    ingest = Ingest(app, settings, settings.inputs_of("calls")[0], snapshots, posting)  # type: ignore[arg-type]

    async def stream() -> AsyncIterator[RecordBatch]:
        nonlocal taken
        for batch in read:
            taken += len(batch.records)
            yield batch
            await asyncio.sleep(every_seconds)

    await ingest.run(stream())
    while sum(posting.records) < taken:  # noqa: ASYNC110 (it is posted in threads)
        await asyncio.sleep(0.01)
    return taken_when_posted


def test_without_a_backlog_a_lane_writes_ten_times_a_second_at_most() -> None:
    posting = Posting(0.0)

    asyncio.run(ingested(posting, batches(100, 2, behind=0), every_seconds=0.01))

    pauses = [later - earlier for earlier, later in zip(posting.began, posting.began[1:], strict=False)]
    assert sum(posting.records) == 200
    assert len(pauses) >= 5
    assert min(pauses) > 0.08


def test_after_a_long_wait_for_the_database_a_lane_goes_on_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_rest_seconds_max", 0.1)
    posting = Posting(1.0)

    asyncio.run(ingested(posting, batches(30, 2, behind=0), every_seconds=0.05))

    assert len(posting.began) >= 2
    assert posting.began[1] - posting.began[0] < 1.5


def test_small_transactions_are_written_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_turn_seconds_max", 60)
    posting = Posting(0.05)

    asyncio.run(ingested(posting, [*batches(1, 2, behind=0), *batches(1, 2, 0, 1), *batches(1, 2, 0, 2)]))

    assert sum(posting.records) == 6
    assert posting.at_once_max == 1


def test_large_transactions_are_written_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_small_records_max", 2)
    posting = Posting(1.5)

    asyncio.run(ingested(posting, [*batches(1, 2, behind=0), *batches(1, 2, 0, 1), *batches(1, 2, 0, 2)]))

    assert posting.at_once_max == 3


def test_a_small_transaction_that_hangs_does_not_keep_other_partitions_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "_turn_seconds_max", 0.1)
    posting = Posting(3.0)

    asyncio.run(ingested(posting, [*batches(1, 2, behind=0), *batches(1, 2, 0, 1)]))

    assert len(posting.began) == 2
    assert posting.began[1] - posting.began[0] < 1.5


def test_with_a_backlog_a_transaction_gathers_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_transaction_records_max", 400)
    posting = Posting(0.0)

    asyncio.run(ingested(posting, batches(20, 100, behind=100_000)))

    assert posting.records == [400] * 5


def test_what_is_in_the_database_counts_against_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_transaction_records_max", 200)
    monkeypatch.setattr(worker, "_prepared_records_max", 400)
    posting = Posting(0.05)

    taken = asyncio.run(ingested(posting, batches(20, 100, behind=100_000)))

    in_memory = [read - sum(posting.records[:place]) for place, read in enumerate(taken)]
    assert max(in_memory) <= 400


def test_the_pieces_of_a_batch_share_its_offsets_out_without_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever offsets hold no record: what a transaction moves its position over, it has written."""
    monkeypatch.setattr(worker, "piece_records", 2)
    monkeypatch.setattr(worker, "_transaction_records_max", 2)
    (whole,) = batches(1, 12, behind=0)
    holed = [each for each in whole.records if each.offset in {3, 4, 7, 8, 9}]
    posting = Posting(0.0)

    asyncio.run(ingested(posting, [whole._replace(records=holed)]))

    assert posting.offsets == [(0, [3, 4], 7), (7, [7, 8], 9), (9, [9], 12)]
