"""A carrier whose records go through Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.stack.kafka import RealKafka
from tests.acceptance.test_workers import BIG, NUMBER, SHARED_IP, Carrier
from tests.conftest import MakeTopics


@pytest.fixture
def carrier(
    database: Engine, database_url: str, real_kafka: RealKafka, topics: MakeTopics, tmp_path: Path
) -> Carrier:
    """Topics of the test's own on Apache Kafka, one tenant's number, and a shared address."""
    carrier = Carrier(database, database_url, real_kafka, topics(calls=2, sip=1), tmp_path)
    account = carrier.world.account()
    carrier.world.tenant(account, BIG)
    carrier.world.number(NUMBER, account, carrier.world.tenant(account, "a.example.com"))
    carrier.world.ip(SHARED_IP, account)
    carrier.world.run()
    return carrier
