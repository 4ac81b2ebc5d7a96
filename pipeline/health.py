"""`/livez`, `/readyz` and `/metrics` of a service, on one port.

*Ready*: it can do its work now. *Live*: nothing in it has stopped that only a restart would start again; an outage of
Kafka, Postgres or Stripe is waited out and is no reason to be restarted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client import REGISTRY, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector
from sqlalchemy import Engine, text

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Check = Callable[[], str | None]
"""None where all is well; else what is not, in words of ours."""

_log = structlog.get_logger(__name__)
_NOT_FOUND: Final = "there are /livez, /readyz and /metrics"


class PortTakenError(RuntimeError):
    """The port cannot be had; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a service is asked, by name."""

    ready: Mapping[str, Check]
    live: Mapping[str, Check]


@dataclass(slots=True)
class Pulse:
    """When each of a service's loops last went round; `monotonic` gives seconds that only grow."""

    monotonic: Callable[[], float]
    _seen_at: dict[str, float] = field(default_factory=dict)

    def beat(self, loop: str) -> None:
        """This loop goes round."""
        self._seen_at[loop] = self.monotonic()

    def begun(self, loop: str) -> str | None:
        """A check: this loop has gone round at all."""
        return None if loop in self._seen_at else "has not begun yet"

    def beats(self, loop: str, seconds_max: float) -> str | None:
        """A check: this loop has not stood still for longer than that."""
        seen_at = self._seen_at.get(loop)
        if seen_at is None or self.monotonic() - seen_at <= seconds_max:
            return None
        return f"has stood still for more than {seconds_max:g} s"


def database_answers(engine: Engine) -> str | None:
    """A check: Postgres can be reached."""
    try:
        with engine.connect() as connection:
            connection.execute(text("select 1"))
    except Exception as error:  # noqa: BLE001 (whatever it is, the database cannot be used)
        return f"cannot be reached ({type(error).__name__})"
    return None


@contextmanager
def door(host: str, port: int, health: Health, registry: Collector = REGISTRY) -> Iterator[int]:
    """Answer on a port while the block runs; 0 takes a free one, and which it is, is given.

    Raises:
        PortTakenError: the port cannot be had.
    """
    application = _application(health, make_wsgi_app(registry))
    try:
        server = make_server(host, port, application, _Server, _Quiet)
    except OSError as error:
        raise PortTakenError(f"port {port} on {host} cannot be had: {error.strerror}") from error
    thread = Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _application(health: Health, metrics: WSGIApplication) -> WSGIApplication:
    pages = {"/livez": health.live, "/readyz": health.ready}

    def answer(environment: WSGIEnvironment, respond: StartResponse) -> object:
        path = environment["PATH_INFO"]
        try:
            if path == "/metrics":
                return metrics(environment, respond)
            if path not in pages:
                return _say(respond, "404 Not Found", {"error": _NOT_FOUND})
            found = {name: check() for name, check in pages[path].items()}
        except Exception as error:  # noqa: BLE001 (whatever a check raises, it is told as what it is)
            _log.exception("question_failed", path=path)
            return _say(respond, "500 Internal Server Error", {"error": type(error).__name__})
        well = not any(found.values())
        told = {name: trouble or "ok" for name, trouble in found.items()}
        return _say(respond, "200 OK" if well else "503 Service Unavailable", told)

    return answer  # type: ignore[return-value] # lists of bytes, as WSGI wants them


def _say(respond: StartResponse, status: str, told: Mapping[str, str]) -> list[bytes]:
    respond(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [json.dumps(told).encode() + b"\n"]


class _Server(ThreadingWSGIServer):
    """Whoever hangs up in the middle of a question is no trouble of ours."""

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Called by the library with the exception at hand."""
        _log.info("question_broken_off", exc_info=True)


class _Quiet(WSGIRequestHandler):
    """Logs no request: probes ask every few seconds."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the library's name)
        """Nothing."""
