"""A subscriber of closed statements: `python -m deploy.examples.subscriber 127.0.0.1:9092 statements.closed seen.db`.

Events may come twice. What is done with one and the note that it was done are one transaction, and only then does
Kafka hear of it: killed anywhere, each statement is in `statements` once.
"""

import hashlib
import json
import sqlite3
import sys

from confluent_kafka import Consumer


def main(brokers: str, topic: str, database: str) -> None:
    """Keep each statement once, for ever; other kinds of events and later fields are passed over."""
    seen = sqlite3.connect(database)
    seen.execute("create table if not exists statements (event_id text primary key, sha256 text, body text)")
    settings = {
        "bootstrap.servers": brokers,
        "group.id": "sample-subscriber",
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer({**settings, "enable.auto.commit": False})
    consumer.subscribe([topic])
    while True:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        headers = dict(message.headers() or [])
        if headers.get("ce_type") == b"tenant-billing.statement.closed.v1":
            event = json.loads(message.value())
            body = json.dumps(event["statement"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            if hashlib.sha256(body.encode()).hexdigest() != event["sha256"]:
                sys.exit(f"statement {event['statement_id']} is not what its hash says")
            with seen:
                row = (headers["ce_id"].decode(), event["sha256"], body)
                seen.execute("insert into statements values (?, ?, ?) on conflict do nothing", row)
        consumer.commit(message, asynchronous=False)


if __name__ == "__main__":
    main(*sys.argv[1:4])
