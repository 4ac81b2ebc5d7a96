"""Jobs as processes of a test's own: `python -m tests.pipeline.program JOB DATABASE_URL …`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime

from pipeline import closer, election, position_store, relay, replay, resolver
from pipeline.database import connect
from pipeline.settings import InputTopic, Settings
from pipeline.snapshot import Snapshots
from rollup import months_store, outbox_store
from rollup.quarantine_store import Chosen
from schemas.locks import Lock
from schemas.periods import Period
from tests.world import Ends

SETTINGS = Settings(inputs=(InputTopic(topic="calls.raw", kind="calls"),))


class NothingBeyond:
    """Kafka, for a close that has read everything."""

    def boundaries(self, topics: Iterable[str], at: datetime) -> Mapping[tuple[str, int], int]:  # noqa: ARG002 (the protocol)
        return {(topic, 0): 0 for topic in topics}

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:  # noqa: ARG002 (the protocol)
        return {}


def lead() -> bool:
    sys.stdout.write("leading\n")
    sys.stdout.flush()
    return False


def main() -> None:
    job, url, *rest = sys.argv[1:]
    engine = connect(url, application_name="stopped")
    election.silent_seconds_max = 1.0
    outbox_store.frozen_seconds_max = months_store.seal_wait_seconds_max = 1  # type: ignore[misc]
    match job:
        case "close":
            closer.close_month(engine, SETTINGS, NothingBeyond(), Period.parse(rest[0]))
        case "replay":
            replay.replay(engine, SETTINGS, Snapshots(engine), Chosen())
        case "discard":
            replay.discard(engine, Chosen(), "killed")
        case "resolve":
            position_store.idle_seconds_max = 1  # type: ignore[misc]
            resolver.resolve_once(Settings(), engine, Snapshots(engine), Ends(engine))  # type: ignore[arg-type]
        case "relay":
            settings = Settings(kafka_bootstrap_servers=rest[0], relay_interval_seconds=0.05)
            relay.run_relay(settings, engine, threading.Event())
        case "lead":
            election.while_elected(engine, Lock.CLOSER, threading.Event(), 0.05, lead)
        case _:
            raise SystemExit(f"no such job: {job}")


if __name__ == "__main__":
    main()
