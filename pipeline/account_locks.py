"""Which accounts this process has for itself (I0).

An account's invoices are worked on by one process at a time: it holds the account's session lock in Postgres. All of a
process's locks are held by one connection, so that any number of accounts can be under way. Who loses that connection
has lost them all, and stops at the next invoice; what is on the way by then is safe without a lock as well (I7).
"""

from __future__ import annotations

import threading

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from schemas.locks import Lock


class AccountLocks:
    """This process's locks on accounts. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._held: set[int] = set()
        self._guard = threading.Lock()

    def take(self, account_id: int) -> bool:
        """Have the account for ourselves. False: another process has it.

        Raises:
            DBAPIError: Postgres is out of reach; nothing is held any more.
        """
        with self._guard:
            taken = self._ask("select pg_try_advisory_lock(:kind, :account)", account_id)
            if taken:
                self._held.add(account_id)
            return taken

    def give_up(self, account_id: int) -> None:
        """Let others have the account."""
        with self._guard:
            if account_id in self._held:
                self._held.discard(account_id)
                self._ask("select pg_advisory_unlock(:kind, :account)", account_id)

    def holds(self, account_id: int) -> bool:
        """Whether the account is ours, as far as we have heard."""
        return account_id in self._held

    def check(self) -> None:
        """Hear whether the connection still lives.

        Raises:
            DBAPIError: it does not; nothing is held any more.
        """
        with self._guard:
            if self._connection is not None:
                self._ask("select true or :kind = :account", 0)

    def close(self) -> None:
        """Give everything up."""
        with self._guard:
            self._lose()

    def _ask(self, question: str, account_id: int) -> bool:
        if self._connection is None:
            connection = self._engine.connect()
            self._connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        try:
            keys = {"kind": Lock.INVOICE_ACCOUNT, "account": account_id}
            return bool(self._connection.scalar(text(question), keys))
        except DBAPIError:
            self._lose()
            raise

    def _lose(self) -> None:
        """Close the real connection: back in the pool it must not hold a lock."""
        self._held.clear()
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
        self._connection = None
