"""Keys, faults and the clock: what happens to a request before and after it takes effect."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from invoicing.sandbox.books import Books
from invoicing.sandbox.clock import MovableClock
from invoicing.sandbox.faults import Fault, FaultScript
from invoicing.sandbox.parameters import API_VERSION
from invoicing.sandbox.refusal import RefusedError, missing
from invoicing.sandbox.routes import Body, run
from invoicing.sandbox.traffic import Traffic

KEY_LIFETIME: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; `encoded` is its form or query. `key`: its idempotency key, on a POST.

    `version`: the API version it asks for; empty where it says none.
    """

    method: str
    path: str
    encoded: str
    account: str
    key: str | None
    authorization: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; `replayed` where it was first given to an earlier request of the same key."""

    status: int
    body: Body
    replayed: bool = False
    should_retry: bool | None = None


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
        self.traffic = Traffic()
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
        with self.traffic.request_of(request.account) as too_many:
            return _TOO_FAST if too_many else self._answer(request)

    @property
    def requests(self) -> int:
        """How many requests there have been."""
        return self.traffic.asked.total()

    def _answer(self, request: Request) -> Answer:
        with self._lock:
            fault = self._faults.next_for(request.method, request.path, request.account)
            if fault is not None and fault.comes_first:
                return self._fail(request, fault, keep=self._kept(request) is None)
            known = self._known(request)
            if known is None:
                self._take_key(request)
        slow, late = (0.0, False) if fault is None else (fault.seconds, fault.commit)
        time.sleep(0 if late else slow)
        answer = known or self._done(request)
        time.sleep(slow if late else 0)
        if fault is None or not fault.loses_answer:
            return answer
        with self._lock:
            return self._fail(request, fault, keep=known is None)

    def control(self, path: str, body: Body) -> Body:
        """The doors beside Stripe's API, for tests and demos."""
        match path:
            case "/_sandbox/clock":
                self.set_clock(_instant(body, self.clock.now()))
                return {"now": self.clock.now().isoformat()}
            case "/_sandbox/faults":
                self.set_faults(*body.get("faults", []), seed=body.get("seed", 0))
            case "/_sandbox/latency":
                self.traffic.set_latency(float(body["seconds"]), float(body.get("jitter_seconds", 0)))
            case "/_sandbox/limit":
                self.traffic.set_limit(body["per_second"])
            case "/_sandbox/traffic":
                return {"requests": self.requests, "under_way": self.traffic.under_way}
            case "/_sandbox/accounts":
                self._link(str(body["account"]), linked=bool(body["linked"]))
            case "/_sandbox/finalization":
                self._script_finalization(body)
            case "/_sandbox/state":
                return self._state()
            case _:
                raise missing("door", path)
        return {}

    def _known(self, request: Request) -> Answer | None:
        """What its key has to say to a request; None: it is new, and is to be done."""
        kept = self._kept(request)
        if kept is None:
            return None
        if kept.fingerprint != _fingerprint(request):
            message = "Keys for idempotent requests can only be used with the same parameters."
            return refused(RefusedError(400, message, kind="idempotency_error"))
        if kept.answer is None:
            message = "There is currently another in-progress request using this key."
            return refused(RefusedError(409, message, code="idempotency_key_in_use"))
        return replace(kept.answer, replayed=True)

    def _fail(self, request: Request, fault: Fault, *, keep: bool) -> Answer:
        """What a fault has in the place of an answer, kept under the request's key where it says so and it may."""
        if fault.action == "reset":
            raise ResetConnection
        error = refused(RefusedError(fault.status, "Scripted failure.", kind="api_error"))
        answer = replace(error, should_retry=fault.should_retry)
        if fault.saved and keep:
            self._take_key(request)
            self._keep(request, answer)
        return answer

    def _done(self, request: Request) -> Answer:
        with self._lock:
            answer = self._execute(request)
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
        if request.version not in {"", API_VERSION}:
            raise RefusedError(400, f"Invalid Stripe API version: {request.version}")
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
            for books in self._books.values():
                books.advance()
            accounts = {
                name: {
                    "linked": books.linked,
                    "customers": list(books.customers.values()),
                    "invoices": [
                        {**invoice, "lines": books.lines(invoice["id"])}
                        for invoice in books.invoices.values()
                    ],
                    "schedulings": books.schedulings,
                    "requests": self.traffic.asked[name],
                    "busiest": self.traffic.busiest[name],
                }
                for name, books in self._books.items()
            }
            return {
                "now": self.clock.now().isoformat(),
                "requests": self.requests,
                "faults": dict(self._faults.dealt),
                "accounts": accounts,
            }


def _fingerprint(request: Request) -> str:
    return f"{request.method} {request.path} {request.encoded}"


def refused(error: RefusedError) -> Answer:
    """A refusal as an answer."""
    return Answer(error.status, error.body)


_TOO_FAST: Final = refused(RefusedError(429, "Request rate limit exceeded.", code="rate_limit"))


def _instant(body: Body, now: datetime) -> datetime:
    if "now" in body:
        return datetime.fromisoformat(body["now"])
    return now + timedelta(seconds=float(body.get("advance_seconds", 0)))
