"""The doors beside Stripe's API that the sandbox keeps for demos and tests: its clock and its books."""

from __future__ import annotations

from datetime import datetime
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

_answer_seconds_max: Final = 30.0


def move_clock(url: str, now: datetime) -> None:
    """Make it that instant in the sandbox; what is due by then happens."""
    _ask(url, "/_sandbox/clock", {"now": now.isoformat()})


def invoice_subtotals(url: str) -> dict[str, int]:
    """Every invoice in the sandbox's books, by id, with its subtotal in minor units."""
    accounts = _ask(url, "/_sandbox/state", {})["accounts"]
    return {each["id"]: each["subtotal"] for books in accounts.values() for each in books["invoices"]}


def script_faults(url: str, faults: list[dict[str, Any]], seed: int = 0) -> None:
    """Replace what befalls requests (a rule's fields: `invoicing.sandbox.faults.Fault`)."""
    _ask(url, "/_sandbox/faults", {"faults": faults, "seed": seed})


def set_latency(url: str, seconds: float, jitter_seconds: float = 0.0) -> None:
    """Let every answer take so long, give or take."""
    _ask(url, "/_sandbox/latency", {"seconds": seconds, "jitter_seconds": jitter_seconds})


def set_limit(url: str, per_second: int) -> None:
    """Have more requests of one Stripe account within a second refused, as Stripe does."""
    _ask(url, "/_sandbox/limit", {"per_second": per_second})


def requests_under_way(url: str) -> int:
    """How many requests have come in and are not answered yet."""
    return int(_ask(url, "/_sandbox/traffic", {})["under_way"])


def whole_state(url: str) -> dict[str, Any]:
    """Everything in the sandbox: `accounts` with their books, `requests`, and `faults` by name."""
    return _ask(url, "/_sandbox/state", {})


def _ask(url: str, door: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=_answer_seconds_max)
    try:
        connection.request("POST", door, orjson.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said: dict[str, Any] = orjson.loads(answer.read())
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"the sandbox answered {answer.status} at {door}: {said}")
    return said
