"""How a worker paces itself: what is little is written together and now and then, a backlog in large transactions, no more than there is room for."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Final

import psycopg2
import pytest
from faust.types import TP
from sqlalchemy.exc import DBAPIError

from pipeline import lanes, worker
from pipeline.posting import LostPlaceError, PreparedBatch
from pipeline.settings import Settings
from pipeline.transport import RecordBatch
from pipeline.worker import Ingest
from rollup.posting_store import Counted
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
        self.partitions: list[int] = []
        self.refused: dict[int, Exception] = {}
        self.looked_up: list[TP] = []

    def post(self, *batches: PreparedBatch) -> Counter[Counted]:
        self.began.append(time.monotonic())
        self.partitions.append(len(batches))
        time.sleep(self.seconds)
        for batch in batches:
            if batch.position_id in self.refused:
                raise self.refused[batch.position_id]
        self.records.append(sum(batch.records for batch in batches))
        self.offsets += [
            (batch.first_offset, batch.ordinary.messages.offsets.tolist(), batch.next_offset)
            for batch in batches
        ]
        return Counter({Counted(batch.position_id, "posted", ""): batch.records for batch in batches})

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
    """Let an agent read batches, one after the other; how many records it had taken when each transaction ended.

    It is over when all are posted, but for one batch of each partition whose place had to be looked up.
    """
    taken = 0
    taken_when_posted: list[int] = []

    async def find_place(tps: list[TP]) -> None:
        posting.looked_up += tps

    settings = Settings(database_url="postgresql://nowhere/none", batch_records_max=50)
    consumer = SimpleNamespace(
        is_current=lambda _: True,
        mark_durable=lambda *_: taken_when_posted.append(taken),
        find_place=find_place,
    )
    app: Any = SimpleNamespace(
        batch_consumer=consumer,
        position_source=SimpleNamespace(id_of=lambda tp: tp.partition + 1),
        should_stop=False,
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
    while sum(posting.records) < taken - len(posting.looked_up) * len(read[0].records):  # noqa: ASYNC110 (it is posted in threads)
        await asyncio.sleep(0.01)
    return taken_when_posted


def test_without_a_backlog_a_lane_writes_twenty_times_a_second_at_most() -> None:
    posting = Posting(0.0)

    asyncio.run(ingested(posting, batches(100, 2, behind=0), every_seconds=0.01))

    pauses = [later - earlier for earlier, later in zip(posting.began, posting.began[1:], strict=False)]
    assert sum(posting.records) == 200
    assert len(pauses) >= 5
    assert min(pauses) > 0.04


def test_after_a_long_wait_for_the_database_a_lane_goes_on_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "rest_seconds_max", 0.1)
    posting = Posting(1.0)

    asyncio.run(ingested(posting, batches(30, 2, behind=0), every_seconds=0.05))

    assert len(posting.began) >= 2
    assert posting.began[1] - posting.began[0] < 1.5


def test_what_partitions_hold_that_hold_little_is_written_together() -> None:
    posting = Posting(0.2)

    asyncio.run(ingested(posting, [batch for partition in range(9) for batch in batches(2, 2, 0, partition)]))

    assert sum(posting.records) == 36
    assert posting.partitions[1:] == [9]  # all that came while the first was written
    assert posting.at_once_max == 1


def test_many_partitions_with_a_backlog_share_large_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "transaction_records_max", 100)
    monkeypatch.setattr(lanes, "prepared_records_max", 200)
    posting = Posting(0.05)

    asyncio.run(
        ingested(posting, [batch for partition in range(40) for batch in batches(1, 10, 100_000, partition)])
    )

    assert sum(posting.records) == 400
    assert max(posting.records) == 100
    assert len(posting.records) <= 6


def test_small_transactions_are_written_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "small_alone_seconds_max", 60)
    posting = Posting(0.05)

    asyncio.run(
        ingested(posting, [*batches(1, 2, behind=0), *batches(1, 2, 0, 1), *batches(1, 2, 0, 2)], 0.02)
    )

    assert sum(posting.records) == 6
    assert posting.at_once_max == 1


def test_large_transactions_are_written_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "transaction_records_max", 2)
    posting = Posting(1.5)

    asyncio.run(ingested(posting, [*batches(1, 2, behind=0), *batches(1, 2, 0, 1), *batches(1, 2, 0, 2)]))

    assert posting.at_once_max == 3


def test_a_small_transaction_that_hangs_does_not_keep_other_partitions_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "small_alone_seconds_max", 0.1)
    posting = Posting(3.0)

    asyncio.run(ingested(posting, [*batches(1, 2, behind=0), *batches(1, 2, 0, 1)], 0.02))

    assert len(posting.began) == 2
    assert posting.began[1] - posting.began[0] < 1.5


class Refusal(psycopg2.errors.CheckViolation):
    pgcode = "23514"


@pytest.mark.parametrize(
    "error",
    [LostPlaceError("someone else is there"), DBAPIError("insert", {}, Refusal())],
    ids=["a place is lost", "a record is refused"],
)
def test_what_cannot_be_written_together_is_written_apart(error: Exception) -> None:
    posting = Posting(0.1)
    posting.refused[2] = error
    read = [batch for partition in (9, 0, 1, 2) for batch in batches(1, 2, 0, partition)]

    asyncio.run(ingested(posting, read))

    assert posting.partitions == [1, 3, 1, 1, 1]
    assert sum(posting.records) == 6
    assert posting.looked_up == [TP(CALLS.topic, 1)]


def test_where_the_database_is_away_nothing_is_tried_apart() -> None:
    posting = Posting(0.1)
    posting.refused[2] = DBAPIError("insert", {}, psycopg2.OperationalError("the server is away"))
    read = [batch for partition in (9, 0, 1, 2) for batch in batches(1, 2, 0, partition)]

    asyncio.run(ingested(posting, read))

    assert posting.partitions == [1, 3]
    assert sorted(posting.looked_up) == [TP(CALLS.topic, partition) for partition in range(3)]


def test_with_a_backlog_a_transaction_gathers_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "transaction_records_max", 400)
    posting = Posting(0.0)

    asyncio.run(ingested(posting, batches(20, 100, behind=100_000)))

    assert posting.records == [400] * 5


def test_what_is_in_the_database_counts_against_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "transaction_records_max", 200)
    monkeypatch.setattr(lanes, "prepared_records_max", 400)
    posting = Posting(0.05)

    taken = asyncio.run(ingested(posting, batches(20, 100, behind=100_000)))

    in_memory = [read - sum(posting.records[:place]) for place, read in enumerate(taken)]
    assert max(in_memory) <= 400


def test_the_pieces_of_a_batch_share_its_offsets_out_without_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever offsets hold no record: what a transaction moves its position over, it has written."""
    monkeypatch.setattr(worker, "piece_records", 2)
    monkeypatch.setattr(lanes, "transaction_records_max", 2)
    (whole,) = batches(1, 12, behind=0)
    holed = [each for each in whole.records if each.offset in {3, 4, 7, 8, 9}]
    posting = Posting(0.0)

    asyncio.run(ingested(posting, [whole._replace(records=holed)]))

    assert posting.offsets == [(0, [3, 4], 7), (7, [7, 8], 9), (9, [9], 12)]
