"""Sessions whose process stands still in the middle of a transaction, and so holds its locks for as long as it stands.

The server ends a session by itself that is silent between two statements. In the middle of a COPY, either way, no timeout
of its own reaches it, and the kernel of a frozen process goes on acknowledging: who waits for its locks must end it.
"""

from __future__ import annotations

from sqlalchemy import Connection, text


def end_silent(connection: Connection, name: str, seconds: float) -> list[int]:
    """End sessions that do a work of this name and have waited for their own process; returns their server processes.

    A query that the server is working on is none of them. One that streams rows may be ended though it moves, if it has
    run for longer than that: whatever is named so can be done again.

    Args:
        connection: any transaction, by the same database user.
        name: the `application_name` that the work's transactions take.
        seconds: how long their last statement, or the pause behind it, must have lasted.
    """
    rows = connection.execute(
        text(
            "select pid, pg_terminate_backend(pid) as ended from pg_stat_activity "
            "where datname = current_database() and usename = current_user and application_name = :name "
            "and wait_event_type = 'Client' and wait_event in ('ClientRead', 'ClientWrite') "
            "and xact_start is not null and state_change < clock_timestamp() - make_interval(secs => :seconds)"
        ),
        {"name": name, "seconds": seconds},
    )
    return [row.pid for row in rows if row.ended]
