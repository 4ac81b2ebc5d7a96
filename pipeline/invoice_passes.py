"""Every account's due invoices, worked off several at once, each account for itself (I0).

An account has a pass of its own, with as many threads as its permitted pace can use: while one invoice waits for Stripe,
others go on. What one account meets (an outage, a refusal, a row that cannot be worked) ends or delays its own pass only.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from math import ceil
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from invoicing import progress_store, store
from invoicing.invoicer import BACKOFF_MAX, Invoicer, Worked, backoff
from invoicing.pace import Pace
from invoicing.refresh import refresh_invoice
from pipeline.account_locks import AccountLocks
from pipeline.health import Pulse
from pipeline.invoice_progress import LOG_SECONDS, Progress, Tell, log_standing

ACCOUNTS_AT_ONCE_MAX: Final = 64
ROWS_PER_PASS_MAX: Final = 500
IN_FLIGHT_MIN: Final = 4
IN_FLIGHT_MAX: Final = 64
IN_FLIGHT_SECONDS: Final = (
    0.5  # the pace is kept up as long as an invoice's request takes no longer than this
)
FAILURES_IN_A_ROW_MAX: Final = 10  # more: the account's Stripe is down, and it rests

_log = structlog.get_logger()
Task = Callable[[], Worked]


@dataclass(slots=True)
class Scheduler:
    """Works every account's due rows off, one process at a time per account.

    `tell` hears every `tell_seconds` how far an account is.
    """

    invoicer: Invoicer
    stop: threading.Event
    pulse: Pulse
    pace: Pace
    tell: Tell = log_standing
    tell_seconds: float = LOG_SECONDS
    _busy: dict[int, Future[bool]] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _rests_until: dict[int, datetime] = field(default_factory=dict)
    _progress: dict[int, Progress] = field(default_factory=dict)
    _elsewhere: set[int] = field(
        default_factory=set
    )  # accounts that another process was found to be at work on
    _locks: AccountLocks = field(init=False)

    def __post_init__(self) -> None:
        self._locks = AccountLocks(self.invoicer.engine)

    def run(self, interval_seconds: float, turned: Callable[[], object] = lambda: None) -> None:
        """Look for work until stopped; an outage of Postgres is waited out. `turned` is called each time round."""
        with self._passes() as pool:
            while not self.stop.wait(interval_seconds):
                self.pulse.beat("scheduler")
                turned()
                try:
                    self._locks.check()
                    self._start_passes(pool)
                except SQLAlchemyError as error:
                    _log.warning("invoicer_interrupted", error=type(error).__name__)

    def run_until_idle(self, interval_seconds: float) -> None:
        """Do what is due, and return once nothing more is, or everything due waits for another process or for Stripe."""
        with self._passes() as pool:
            while self._start_passes(pool, self._elsewhere) or self._busy:
                wait(self._busy.values(), timeout=interval_seconds, return_when=FIRST_COMPLETED)
                if self.stop.is_set():
                    return

    def run_pass(self, account_id: int) -> bool:
        """Do what an account has to do now. False: Stripe did not answer, and the account should rest."""
        if not self._locks.take(account_id):
            self._elsewhere.add(account_id)
            return True
        try:
            return self._work_rows(account_id) and self._read_sent(account_id)
        finally:
            self._locks.give_up(account_id)

    @property
    def in_flight(self) -> int:
        """How many of an account's invoices are worked on at once."""
        return min(IN_FLIGHT_MAX, max(IN_FLIGHT_MIN, ceil(self.pace.per_second_max * IN_FLIGHT_SECONDS)))

    @contextmanager
    def _passes(self) -> Iterator[ThreadPoolExecutor]:
        try:
            with ThreadPoolExecutor(ACCOUNTS_AT_ONCE_MAX, thread_name_prefix="account") as pool:
                yield pool
        finally:
            self._locks.close()

    def _start_passes(self, pool: ThreadPoolExecutor, left_alone: Container[int] = ()) -> int:
        """Begin what is due, but for accounts that are to be left alone; gives how many passes that were."""
        self._collect()
        now = self.invoicer.clock()
        with self.invoicer.engine.begin() as connection:
            accounts = store.due_accounts(connection, now)
        rested = [
            account_id
            for account_id in accounts
            if account_id not in self._busy
            and account_id not in left_alone
            and self._rests_until.get(account_id, now) <= now
        ]
        for account_id in rested:
            self._busy[account_id] = pool.submit(self.run_pass, account_id)
        return len(rested)

    def _collect(self) -> None:
        for account_id, future in list(self._busy.items()):
            if future.done():
                del self._busy[account_id]
                self._note(account_id, future)

    def _note(self, account_id: int, future: Future[bool]) -> None:
        error = future.exception()
        if error is not None:
            _log.error("invoicer_pass_failed", account=account_id, error=type(error).__name__)
        if error is None and future.result():
            self._failures.pop(account_id, None)
            self._rests_until.pop(account_id, None)
            return
        failures = self._failures.get(account_id, 0)
        self._failures[account_id] = failures + 1
        self._rests_until[account_id] = self.invoicer.clock() + backoff(failures)

    def _work_rows(self, account_id: int) -> bool:
        with self.invoicer.engine.begin() as connection:
            now = self.invoicer.clock()
            due = progress_store.due_work(connection, account_id, now, ROWS_PER_PASS_MAX)
        if not due:
            return True
        progress = self._progress_of(account_id)
        by_tenant = groupby(sorted(due, key=lambda row: row.tenant_id), key=lambda row: row.tenant_id)
        chains: list[list[Task]] = [[partial(self._work, row.id) for row in rows] for _, rows in by_tenant]
        worked = self._run(account_id, chains, progress)
        if progress.finished():
            del self._progress[account_id]
        if worked.paused:
            _log.error("invoicing_paused", account=account_id)
        if worked.is_down:
            _log.warning("invoicing_delayed", account=account_id)
        return not worked.is_down

    def _read_sent(self, account_id: int) -> bool:
        with self.invoicer.engine.begin() as connection:
            now = self.invoicer.clock()
            unread = store.unread_invoices(
                connection, account_id, now, due_only=True, rows_max=ROWS_PER_PASS_MAX
            )
        self._run(account_id, [[partial(self._refresh, invoice_id)] for invoice_id in unread], None)
        return True

    def _run(self, account_id: int, chains: Iterable[list[Task]], progress: Progress | None) -> _Pass:
        """Work chains of tasks off, so many at once, until they are done or it makes no sense to go on."""
        this = _Pass(deque(chains), lambda: self.stop.is_set() or not self._locks.holds(account_id), progress)
        threads = min(self.in_flight, len(this.chains))
        if threads:
            with ThreadPoolExecutor(threads, thread_name_prefix=f"invoices-{account_id}") as pool:
                for done in [pool.submit(this.work) for _ in range(threads)]:
                    done.result()
        return this

    def _progress_of(self, account_id: int) -> Progress:
        if account_id not in self._progress:
            self._progress[account_id] = Progress(
                self.invoicer.engine,
                self.pace,
                account_id,
                self.pulse.monotonic,
                self.tell,
                self.tell_seconds,
            )
        return self._progress[account_id]

    def _work(self, invoice_id: UUID) -> Worked:
        try:
            return self.invoicer.work(invoice_id)
        except Exception as error:
            if _is_outage(error):
                raise
            name = type(error).__name__
            where = traceback.extract_tb(error.__traceback__)[-1]  # never its message: it may name people
            place = f"{where.filename}:{where.lineno}"
            _log.error("invoice_not_worked", invoice=str(invoice_id), error=name, at=place)
            reason, now = f"unexpected: {name}; the log says more", self.invoicer.clock()
            with self.invoicer.engine.begin() as connection:
                progress_store.put_off(connection, invoice_id, reason, now, now + BACKOFF_MAX)
            return Worked.DONE

    def _refresh(self, invoice_id: UUID) -> Worked:
        learnt = refresh_invoice(self.invoicer, invoice_id)
        return Worked.LATER if learnt is None else Worked.DONE


@dataclass(slots=True)
class _Pass:
    """What the threads of one pass share. A chain's tasks are done one after another, chains side by side."""

    chains: deque[list[Task]]
    must_stop: Callable[[], bool]
    progress: Progress | None
    paused: bool = False
    broken: bool = False
    _failures_in_a_row: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_down(self) -> bool:
        """Stripe has not answered for a while."""
        return self._failures_in_a_row >= FAILURES_IN_A_ROW_MAX

    def work(self) -> None:
        """Take chains as long as there are any; for one thread."""
        while (chain := self._next()) is not None:
            for task in chain:
                if self._is_over():
                    return
                self._note(self._do(task))

    def _next(self) -> list[Task] | None:
        with self._guard:
            return self.chains.popleft() if self.chains else None

    def _do(self, task: Task) -> Worked:
        try:
            return task()
        except BaseException:
            self.broken = True  # the other threads stop, and the pass tells of this one's end
            raise

    def _note(self, worked: Worked) -> None:
        with self._guard:
            self.paused = self.paused or worked is Worked.PAUSED
            self._failures_in_a_row = self._failures_in_a_row + 1 if worked is Worked.LATER else 0
        if self.progress is not None:
            self.progress.note(done=worked is Worked.DONE)

    def _is_over(self) -> bool:
        return self.paused or self.broken or self.is_down or self.must_stop()


def _is_outage(error: Exception) -> bool:
    """Whether Postgres is out of reach: then no row is to blame."""
    lost = isinstance(error, DBAPIError) and (
        error.connection_invalidated or type(error).__name__ in {"OperationalError", "InterfaceError"}
    )
    return lost or isinstance(error, PoolTimeoutError)
