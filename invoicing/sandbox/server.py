"""The sandbox over HTTP: routing, keys, faults, pages, and the doors that tests use."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from invoicing.sandbox.books import Books, Thing
from invoicing.sandbox.clock import MovableClock
from invoicing.sandbox.faults import Fault, FaultScript
from invoicing.sandbox.forms import Form, integer, parse_form, text
from invoicing.sandbox.parameters import refuse_unknown
from invoicing.sandbox.refusal import RefusedError, invalid, missing

KEY_LIFETIME: Final = timedelta(hours=24)
PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 10
PLATFORM: Final = "acct_platform"

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: re.Pattern[str]
    params: str
    run: Callable[..., Thing | list[Thing]]


def _route(method: str, path: str, params: str, run: Callable[..., Thing | list[Thing]]) -> _Route:
    return _Route(method, re.compile(path.replace("ID", r"(\w+)")), params, run)


_ROUTES: Final = (
    _route("POST", "/v1/customers", "CustomerCreateParams", Books.create_customer),
    _route("GET", "/v1/customers", "CustomerListParams", Books.list_customers),
    _route("POST", "/v1/customers/ID", "CustomerUpdateParams", lambda b, f, i: b.update_customer(i, f)),
    _route("GET", "/v1/customers/ID", "CustomerRetrieveParams", lambda b, _, i: b.customer(i)),
    _route("DELETE", "/v1/customers/ID", "CustomerDeleteParams", lambda b, _, i: b.delete_customer(i)),
    _route("POST", "/v1/invoices", "InvoiceCreateParams", Books.create_invoice),
    _route("GET", "/v1/invoices", "InvoiceListParams", Books.list_invoices),
    _route("POST", "/v1/invoices/ID", "InvoiceUpdateParams", lambda b, f, i: b.update_invoice(i, f)),
    _route("GET", "/v1/invoices/ID", "InvoiceRetrieveParams", lambda b, _, i: b.invoice(i)),
    _route("DELETE", "/v1/invoices/ID", "InvoiceDeleteParams", lambda b, _, i: b.delete_invoice(i)),
    _route("GET", "/v1/invoices/ID/lines", "InvoiceLineItemListParams", lambda b, _, i: b.lines(i)),
    _route("POST", "/v1/invoices/ID/finalize", "InvoiceFinalizeInvoiceParams", lambda b, _, i: b.finalize(i)),
    _route("POST", "/v1/invoices/ID/pay", "InvoicePayParams", lambda b, _, i: b.pay(i)),
    _route("POST", "/v1/invoices/ID/void", "InvoiceVoidInvoiceParams", lambda b, _, i: b.void(i)),
    _route("POST", "/v1/invoiceitems", "InvoiceItemCreateParams", Books.create_item),
    _route("GET", "/v1/invoiceitems", "InvoiceItemListParams", Books.list_items),
    _route("GET", "/v1/invoiceitems/ID", "InvoiceItemRetrieveParams", lambda b, _, i: b.item(i)),
    _route("DELETE", "/v1/invoiceitems/ID", "InvoiceItemDeleteParams", lambda b, _, i: b.delete_item(i)),
)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    encoded: str
    account: str
    key: str | None
    authorization: str


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: Body
    replayed: bool = False


@dataclass(slots=True)
class _Kept:
    fingerprint: str
    answer: _Answer | None  # None: the first request is still under way
    kept_at: datetime


class _ResetConnection(Exception):  # noqa: N818 (not an error: an instruction to the connection)
    """Drop the connection without an answer."""


class Sandbox:
    """The server. In tests: `with Sandbox().start() as sandbox: … sandbox.url`; `port` 0 takes a free one."""

    def __init__(self, port: int = 0) -> None:
        self.clock = MovableClock()
        self.requests = 0
        self._lock = threading.Lock()
        self._books: dict[str, Books] = {}
        self._keys: dict[tuple[str, str], _Kept] = {}
        self._faults = FaultScript()
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="stripe-sandbox"
        )

    @property
    def url(self) -> str:
        """The base address for Stripe's client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> Sandbox:
        """Serve in a thread of this process."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and close every connection."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.close_connections()

    def serve_forever(self) -> None:
        """Serve in this thread until the process ends."""
        self._server.serve_forever()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

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

    def answer(self, request: _Request) -> _Answer:
        """One request of Stripe's API, with whatever befalls it.

        Raises:
            _ResetConnection: the script says that no answer arrives.
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

    def _before(self, request: _Request, fault: Fault | None) -> _Answer | None:
        """What is answered without executing anything; takes the key where there is one."""
        kept = self._kept(request)
        if kept is not None:
            if kept.fingerprint != _fingerprint(request):
                message = "Keys for idempotent requests can only be used with the same parameters."
                return _refused(RefusedError(400, message, kind="idempotency_error"))
            if kept.answer is None:
                message = "There is currently another in-progress request using this key."
                return _refused(RefusedError(409, message, code="idempotency_key_in_use"))
            return _Answer(kept.answer.status, kept.answer.body, replayed=True)
        if fault is None or fault.commit or fault.action == "slow":
            self._take_key(request)
            return None
        if fault.action == "reset":
            raise _ResetConnection
        return self._failure(request, fault)

    def _lose(self, request: _Request, fault: Fault | None, answer: _Answer) -> _Answer:
        if fault is None or not fault.commit:
            return answer
        if fault.action == "reset":
            raise _ResetConnection
        return self._failure(request, fault) if fault.action == "status" else answer

    def _failure(self, request: _Request, fault: Fault) -> _Answer:
        answer = _refused(RefusedError(fault.status, "Scripted failure.", kind="api_error"))
        if fault.saved:
            self._take_key(request)
            self._keep(request, answer)
        return answer

    def _execute(self, request: _Request) -> _Answer:
        try:
            return _Answer(200, _run(self._admitted(request), request))
        except RefusedError as refused:
            return _refused(refused)

    def _admitted(self, request: _Request) -> Books:
        if not re.fullmatch(r"Bearer [sr]k_(test|live)_\w+", request.authorization):
            raise RefusedError(401, "Invalid API Key provided.")
        books = self.books(request.account)
        if not books.linked:
            message = "The provided key does not have access to this account."
            raise RefusedError(403, message, code="account_invalid")
        books.advance()
        return books

    def _kept(self, request: _Request) -> _Kept | None:
        kept = self._keys.get((request.account, request.key or ""))
        if kept is None or self.clock.now() - kept.kept_at >= KEY_LIFETIME:
            return None
        return kept

    def _take_key(self, request: _Request) -> None:
        if request.key is not None:
            kept = _Kept(_fingerprint(request), None, self.clock.now())
            self._keys[request.account, request.key] = kept

    def _keep(self, request: _Request, answer: _Answer) -> None:
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


def _run(books: Books, request: _Request) -> Body:
    for route in _ROUTES:
        match = route.path.fullmatch(request.path)
        if match is not None and route.method == request.method:
            form = parse_form(request.encoded)
            refuse_unknown(route.params, form)
            found = route.run(books, form, *match.groups())
            # a deep copy: an answer that is replayed later says what was true then
            copy = json.loads(json.dumps(found))
            return _page(request.path, form, copy) if isinstance(copy, list) else copy
    raise RefusedError(404, f"Unrecognized request URL ({request.method}: {request.path}).")


def _page(path: str, form: Form, things: list[Thing]) -> Body:
    limit = integer(form, "limit") or PAGE_DEFAULT
    if not 1 <= limit <= PAGE_MAX:
        raise invalid(f"Limit must be between 1 and {PAGE_MAX}.", "limit")
    after, start = text(form, "starting_after"), 0
    if after is not None:
        ids = [thing["id"] for thing in things]
        if after not in ids:
            raise missing("object", after, "starting_after", 400)
        start = ids.index(after) + 1
    page = things[start : start + limit]
    return {"object": "list", "url": path, "data": page, "has_more": start + limit < len(things)}


def _fingerprint(request: _Request) -> str:
    return f"{request.method} {request.path} {request.encoded}"


def _refused(refused: RefusedError) -> _Answer:
    return _Answer(refused.status, refused.body)


def _instant(body: Body, now: datetime) -> datetime:
    if "now" in body:
        return datetime.fromisoformat(body["now"])
    return now + timedelta(seconds=float(body.get("advance_seconds", 0)))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (the base class's types)
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 (same)
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._connections.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (same)
        """A client that goes away in the middle is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one segment for head and body
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, *_arguments: object) -> None:
        """Requests carry names and addresses; nothing is logged."""

    def _answer(self) -> None:
        try:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            if parts.path.startswith("/_sandbox/"):
                self._control(parts.path, body)
            else:
                self._write(self.server.sandbox.answer(self._request(parts.path, body or parts.query)))
        except _ResetConnection:
            self._reset()

    def _request(self, path: str, encoded: str) -> _Request:
        return _Request(
            method=self.command,
            path=path,
            encoded=encoded,
            account=self.headers.get("Stripe-Account") or PLATFORM,
            key=self.headers.get("Idempotency-Key") if self.command == "POST" else None,
            authorization=self.headers.get("Authorization") or "",
        )

    def _control(self, path: str, body: str) -> None:
        try:
            self._write(_Answer(200, self.server.sandbox.control(path, json.loads(body or "{}"))))
        except RefusedError as refused:
            self._write(_refused(refused))
        except (KeyError, TypeError, ValueError) as error:
            self._write(_refused(invalid(f"{type(error).__name__}: {error}")))

    def _write(self, answer: _Answer) -> None:
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if answer.replayed:
            self.send_header("Idempotent-Replayed", "true")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
