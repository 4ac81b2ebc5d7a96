"""Keys, faults and the clock: what happens to a request before and after it takes effect."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from invoicing.sandbox.books import Books
from invoicing.sandbox.clock import MovableClock
from invoicing.sandbox.faults import Fault, FaultScript
from invoicing.sandbox.refusal import RefusedError, missing
from invoicing.sandbox.routes import Body, run

KEY_LIFETIME: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; `encoded` is its form or query. `key`: its idempotency key, on a POST."""

    method: str
    path: str
    encoded: str
    account: str
    key: str | None
    authorization: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; `replayed` where it was first given to an earlier request of the same key."""

    status: int
    body: Body
    replayed: bool = False


@dataclass(slots=True)
class _Kept:
    fingerprint: str
    answer: Answer | None  # None: the first request is still under way
    kept_at: datetime


class ResetConnection(Exception):  # noqa: N818 (not an error: an instruction to the connection)
    """Drop the connection without an answer."""


class Desk:
    """All Stripe accounts, and what stands between them and a request. Thread-safe."""

    def __init__(self) -> None:
        self.clock = MovableClock()
        self.requests = 0
        self._lock = threading.Lock()
        self._books: dict[str, Books] = {}
        self._keys: dict[tuple[str, str], _Kept] = {}
        self._faults = FaultScript()

    def books(self, account: str) -> Books:
        """One Stripe account's state, made when first asked for."""
        return self._books.setdefault(account, Books(account, self.clock.timestamp))

    def set_clock(self, now: datetime) -> None:
        """Move the sandbox's clock, and do what Stripe does by itself by then."""
        with self._lock:
            self.clock.set(now)
            for books in self._books.values():
                books.advance()

    def set_faults(self, *faults: dict[str, Any], seed: int = 0) -> None:
        """Replace the fault script (see `faults.Fault` for a rule's fields)."""
        with self._lock:
            self._faults.replace(list(faults), seed)

    def answer(self, request: Request) -> Answer:
        """One request of Stripe's API, with whatever befalls it.

        Raises:
            ResetConnection: the script says that no answer arrives.
        """
        with self._lock:
            self.requests += 1
            fault = self._faults.next_for(request.method, request.path)
            early = self._before(request, fault)
        if early is not None:
            return early
        if fault is not None and fault.action == "slow":
            time.sleep(fault.seconds)
        with self._lock:
            answer = self._execute(request)
            self._keep(request, answer)
            return self._lose(request, fault, answer)

    def control(self, path: str, body: Body) -> Body:
        """The doors beside Stripe's API, for tests and demos."""
        match path:
            case "/_sandbox/clock":
                self.set_clock(_instant(body, self.clock.now()))
                return {"now": self.clock.now().isoformat()}
            case "/_sandbox/faults":
                self.set_faults(*body.get("faults", []), seed=body.get("seed", 0))
            case "/_sandbox/accounts":
                self._link(str(body["account"]), linked=bool(body["linked"]))
            case "/_sandbox/finalization":
                self._script_finalization(body)
            case "/_sandbox/state":
                return self._state()
            case _:
                raise missing("door", path)
        return {}

    def _before(self, request: Request, fault: Fault | None) -> Answer | None:
        """What is answered without executing anything; takes the key where there is one."""
        kept = self._kept(request)
        if kept is not None:
            if kept.fingerprint != _fingerprint(request):
                message = "Keys for idempotent requests can only be used with the same parameters."
                return refused(RefusedError(400, message, kind="idempotency_error"))
            if kept.answer is None:
                message = "There is currently another in-progress request using this key."
                return refused(RefusedError(409, message, code="idempotency_key_in_use"))
            return Answer(kept.answer.status, kept.answer.body, replayed=True)
        if fault is None or fault.commit or fault.action == "slow":
            self._take_key(request)
            return None
        if fault.action == "reset":
            raise ResetConnection
        return self._failure(request, fault)

    def _lose(self, request: Request, fault: Fault | None, answer: Answer) -> Answer:
        if fault is None or not fault.commit:
            return answer
        if fault.action == "reset":
            raise ResetConnection
        return self._failure(request, fault) if fault.action == "status" else answer

    def _failure(self, request: Request, fault: Fault) -> Answer:
        answer = refused(RefusedError(fault.status, "Scripted failure.", kind="api_error"))
        if fault.saved:
            self._take_key(request)
            self._keep(request, answer)
        return answer

    def _execute(self, request: Request) -> Answer:
        try:
            return Answer(200, run(self._admitted(request), request.method, request.path, request.encoded))
        except RefusedError as error:
            return refused(error)

    def _admitted(self, request: Request) -> Books:
        if not re.fullmatch(r"Bearer [sr]k_(test|live)_\w+", request.authorization):
            raise RefusedError(401, "Invalid API Key provided.")
        books = self.books(request.account)
        if not books.linked:
            message = "The provided key does not have access to this account."
            raise RefusedError(403, message, code="account_invalid")
        books.advance()
        return books

    def _kept(self, request: Request) -> _Kept | None:
        kept = self._keys.get((request.account, request.key or ""))
        if kept is None or self.clock.now() - kept.kept_at >= KEY_LIFETIME:
            return None
        return kept

    def _take_key(self, request: Request) -> None:
        if request.key is not None:
            kept = _Kept(_fingerprint(request), None, self.clock.now())
            self._keys[request.account, request.key] = kept

    def _keep(self, request: Request, answer: Answer) -> None:
        """Keep an answer under its key; a request that was refused leaves the key free."""
        if request.key is None:
            return
        if answer.status in {400, 401, 403, 404}:
            self._keys.pop((request.account, request.key), None)
        else:
            self._keys[request.account, request.key].answer = answer

    def _link(self, account: str, *, linked: bool) -> None:
        with self._lock:
            self.books(account).linked = linked

    def _script_finalization(self, body: Body) -> None:
        with self._lock:
            books, invoice = self.books(str(body["account"])), str(body.get("invoice", "*"))
            books.finalization_failures.pop(invoice, None)
            books.tax_switched_off.discard(invoice)
            if body.get("error"):
                books.finalization_failures[invoice] = str(body["error"])
            if body.get("switch_tax_off"):
                books.tax_switched_off.add(invoice)

    def _state(self) -> Body:
        with self._lock:
            accounts = {
                name: {
                    "linked": books.linked,
                    "customers": list(books.customers.values()),
                    "invoices": [
                        {**invoice, "lines": books.lines(invoice["id"])}
                        for invoice in books.invoices.values()
                    ],
                }
                for name, books in self._books.items()
            }
            return {"now": self.clock.now().isoformat(), "requests": self.requests, "accounts": accounts}


def _fingerprint(request: Request) -> str:
    return f"{request.method} {request.path} {request.encoded}"


def refused(error: RefusedError) -> Answer:
    """A refusal as an answer."""
    return Answer(error.status, error.body)


def _instant(body: Body, now: datetime) -> datetime:
    if "now" in body:
        return datetime.fromisoformat(body["now"])
    return now + timedelta(seconds=float(body.get("advance_seconds", 0)))
