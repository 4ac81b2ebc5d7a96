"""Whether history may still be imported: the installation's state, `bootstrap` and then `running` for ever (A8)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, cast

from sqlalchemy import Connection, text

from attribution.details import RefusedChangeError
from schemas.locks import Lock

InstallationState = Literal["bootstrap", "running"]


def bootstrap_state(connection: Connection) -> InstallationState:
    """`bootstrap`: history may carry its own times, and no worker consumes. `running`: made at the clock's instant."""
    state = connection.execute(text("select state from installation")).scalar_one()
    return cast("InstallationState", state)


def finish_bootstrap(connection: Connection, now: datetime) -> None:
    """Let the installation run; there is no way back.

    Raises:
        RefusedChangeError: it runs already.
    """
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": Lock.DIRECTORY})
    finished = connection.execute(
        text("""
            update installation set state = 'running', bootstrap_finished_at = :now
            where state = 'bootstrap' returning id"""),
        {"now": now},
    ).one_or_none()
    if finished is None:
        raise RefusedChangeError("the bootstrap was finished before; there is no way back")
