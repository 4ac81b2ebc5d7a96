"""The sandbox over HTTP, on loopback only."""

from __future__ import annotations

import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from invoicing.sandbox.desk import Answer, Desk, Request, ResetConnection, refused
from invoicing.sandbox.refusal import RefusedError, invalid

PLATFORM: Final = "acct_platform"


class Sandbox(Desk):
    """The server. In tests: `with Sandbox().start() as sandbox: … sandbox.url`; `port` 0 takes a free one."""

    def __init__(self, port: int = 0) -> None:
        super().__init__()
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
            parts, body = urlsplit(self.path), self._whole_body()
            if parts.path.startswith("/_sandbox/"):
                self._control(parts.path, body)
            else:
                self._write(self.server.sandbox.answer(self._request(parts.path, body or parts.query)))
        except ResetConnection:
            self._reset()

    def _whole_body(self) -> str:
        """What was sent along, all of it: a client that dies halfway has asked for nothing."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ResetConnection
        return body.decode()

    def _request(self, path: str, encoded: str) -> Request:
        return Request(
            method=self.command,
            path=path,
            encoded=encoded,
            account=self.headers.get("Stripe-Account") or PLATFORM,
            key=self.headers.get("Idempotency-Key") if self.command == "POST" else None,
            authorization=self.headers.get("Authorization") or "",
            version=self.headers.get("Stripe-Version") or "",
        )

    def _control(self, path: str, body: str) -> None:
        try:
            self._write(Answer(200, self.server.sandbox.control(path, json.loads(body or "{}"))))
        except RefusedError as error:
            self._write(refused(error))
        except (KeyError, TypeError, ValueError) as error:
            self._write(refused(invalid(f"{type(error).__name__}: {error}")))

    def _write(self, answer: Answer) -> None:
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if answer.replayed:
            self.send_header("Idempotent-Replayed", "true")
        if answer.should_retry is not None:
            self.send_header("Stripe-Should-Retry", str(answer.should_retry).lower())
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
