"""One process at a time does a job, and another takes over when it gives up, dies, or stands still (C5, DESIGN 8)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from pipeline import election
from pipeline.election import elected
from schemas.locks import Lock
from tests.pipeline.stopping import program, until


def run(engine: Engine, sql: str, **parameters: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), parameters)


def test_one_candidate_is_elected_and_another_when_it_gives_up(database: Engine) -> None:
    with elected(database, Lock.CLOSER) as first:
        assert first()
        with elected(database, Lock.CLOSER) as second:
            assert not second()
    with elected(database, Lock.CLOSER) as third:
        assert third()


def test_a_leader_whose_session_is_cut_learns_that_it_leads_no_longer(database: Engine) -> None:
    with elected(database, Lock.CLOSER) as leading:
        assert leading()
        run(
            database,
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = :key",
            key=int(Lock.CLOSER),
        )
        with pytest.raises(OperationalError):
            leading()
        with elected(database, Lock.CLOSER) as successor:
            assert successor()


def test_a_leader_that_is_busy_for_long_stays_the_leader(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(election, "silent_seconds_max", 0.5)
    with elected(database, Lock.CLOSER) as leading:
        run(database, "select pg_sleep(2)")
        assert leading()
        with elected(database, Lock.CLOSER) as other:
            assert not other()
    with database.connect() as connection:
        assert connection.execute(text("show idle_session_timeout")).scalar_one() == "0"


def test_a_leader_that_is_frozen_loses_the_job_and_learns_it_when_it_wakes(
    database: Engine, database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    leader = program(["tests.pipeline.program", "lead", database_url], log)
    until(lambda: "leading" in log.read_text(), leader, log)
    os.kill(leader.process.pid, signal.SIGSTOP)

    def taken_over() -> bool:
        with elected(database, Lock.CLOSER) as leading:
            return leading()

    until(taken_over, leader, log)
    os.kill(leader.process.pid, signal.SIGCONT)
    until(lambda: "job_failed" in log.read_text(), leader, log)
    leader.kill()
