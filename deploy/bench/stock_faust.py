"""The peer to compare with: a stock Faust agent that inserts one row per record and commits.

Usage: python -m deploy.bench.stock_faust BOOTSTRAP TOPIC DATABASE_URL COUNT
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import faust
import psycopg2


async def main() -> None:
    """Consume COUNT records and print how many a second it managed."""
    bootstrap, topic, url, count = sys.argv[1:]
    app = faust.App(
        f"stock-{time.monotonic_ns()}",
        broker=f"kafka://{bootstrap}",
        value_serializer="json",
        web_enabled=False,
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
    )
    connection = psycopg2.connect(url)
    done = asyncio.Event()
    times: list[float] = []

    async def ingest(stream: Any) -> None:  # noqa: ANN401 (Faust's streams are untyped)
        async for record in stream:
            with connection, connection.cursor() as cursor:
                cursor.execute(
                    "insert into stock (switch, id, started_at, answered_seconds, cost) values (%s, %s, %s, %s, %s)",
                    (
                        record["switch"],
                        record["id"],
                        record["started_at"],
                        record["answered_seconds"],
                        record["cost"],
                    ),
                )
            times.append(time.perf_counter())
            if len(times) == int(count):
                done.set()

    app.agent(app.topic(topic))(ingest)
    await app.start()
    await asyncio.wait_for(done.wait(), 300)
    sys.stdout.write(f"{(len(times) - 1) / (times[-1] - times[0])}\n")
    sys.stdout.flush()
    await app.stop()


if __name__ == "__main__":
    asyncio.run(main())
