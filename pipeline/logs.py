"""Structured logs: one JSON object a line, on standard error; never a phone number, a name, an address or a key.

Our own lines carry counts, positions and words of ours. What comes from elsewhere, an error's text above all, may quote a
record: so an error is logged by its kind and the places it passed, and every text goes through a mask. Nothing else of a
service gets onto standard error: warnings, librdkafka's lines and uncaught exceptions come this way, too.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import structlog
from sqlalchemy.exc import DBAPIError
from structlog.typing import EventDict, WrappedLogger

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
LIBRDKAFKA: Final = "librdkafka"
_repeat_seconds_min: Final = 60.0
_places_max: Final = 12
_words_max: Final = 500
_OURS: Final = (
    "attribution.",
    "deploy.",
    "invoicing.",
    "pipeline.",
    "rollup.",
    "schemas.",
    "confluent_kafka.",
    "cimpl",
)
_QUOTES_VALUES: Final = ("22", "23")  # classes of SQLSTATE: what the database says of a row's data
_NUMBER: Final = r"\+\d[\d ().-]{5,17}\d|\(\d{3}\) ?\d{3}-\d{4}|\d{3}[-.]\d{3}[-.]\d{4}|\d{10,15}"
_MASKS: Final = (
    (re.compile(r"\b(?:[rs]k|whsec)_\w+"), "<key>"),
    (re.compile(r"(://[^\s:/@]*):[^\s/@]+@"), r"\1:<password>@"),
    (re.compile(r"[^\s@<>\"'(]+@[^\s@<>\"')]+\.[A-Za-z]{2,}\b"), "<address>"),
    (re.compile(rf"(?<![\w.:+-])(?:{_NUMBER})(?![\w:]|[.-]\d)"), "<number>"),
    (re.compile(r"\b(?!127\.)\d{1,3}(?:\.\d{1,3}){3}\b"), "<address>"),
)
_IPV6: Final = re.compile(r"(?<![\w.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w])")
_TIMES: Final = re.compile(r"\d+ ?ms")
_AS_THEY_ARE: Final = frozenset({"timestamp", "level", "logger"})


def configure_logs(level: str) -> None:
    """Send our own logs and the libraries' to standard error as JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        without_error_text,
        masked,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = _Lines()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(LIBRDKAFKA).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=True)
    _log_what_nobody_caught()


def leave_kafka_unheard() -> None:
    """For a command that a person typed: what is wrong with Kafka is told by its answer, once."""
    logging.getLogger(LIBRDKAFKA).setLevel(logging.CRITICAL + 1)


class _Lines(logging.StreamHandler):  # type: ignore[type-arg] # generic for the checker only
    """What libraries log, as lines of ours.

    Kafka's clients say a hundred times a second that there is no broker: the same words are let through once a minute. What
    cannot be written is told by its kind, not by a traceback among the lines.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._said_at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, unless it has been said lately."""
        try:
            words = _TIMES.sub("", record.getMessage())
        except (TypeError, ValueError):
            self.handleError(record)
            return
        since = record.created - _repeat_seconds_min
        self._said_at = {each: at for each, at in self._said_at.items() if at > since}
        if self._said_at.setdefault(words, record.created) == record.created:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the library's name)
        """Called with the exception at hand."""
        structlog.get_logger().error("line_lost", logger=record.name, exc_info=True)


def _log_what_nobody_caught() -> None:
    log = structlog.get_logger("uncaught")

    def of_the_process(_kind: type[BaseException], error: BaseException, _at: TracebackType | None) -> None:
        log.error("uncaught", exc_info=error)

    def of_a_thread(found: threading.ExceptHookArgs) -> None:
        log.error("uncaught", exc_info=found.exc_value, thread=found.thread and found.thread.name)

    def of_nobody(found: sys.UnraisableHookArgs) -> None:
        log.error("uncaught", exc_info=found.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = of_the_process, of_a_thread, of_nobody


def told(error: BaseException) -> str:
    """An error for the log: its kind; and its words, where they are ours or about a connection, never about a row."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "pgcode", None) or ""
        words = "" if code[:2] in _QUOTES_VALUES else str(error.orig)
        return f"{type(error).__name__} {code}: {_first_line(words)}".rstrip(": ")
    return f"{kind}: {_first_line(str(error))}".rstrip(": ") if kind.startswith(_OURS) else kind


def without_error_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """An exception as `told`, and the places it passed; its own text may hold a row's values."""
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = told(error)
        event["at"] = _places(error.__traceback__)
    return event


def masked(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Everything that looks like a phone number, an address or a key, taken out of every text."""
    return {name: value if name in _AS_THEY_ARE else _mask(value) for name, value in event.items()}


def _mask(value: Any) -> Any:  # noqa: ANN401 (a log line's values are whatever JSON holds)
    match value:
        case str():
            for pattern, instead in _MASKS:
                value = pattern.sub(instead, value)
            return _IPV6.sub(_mask_ipv6, value)
        case dict():
            return {name: _mask(each) for name, each in value.items()}
        case list() | tuple():
            return [_mask(each) for each in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return _mask(str(value))


def _mask_ipv6(found: re.Match[str]) -> str:
    """A time of day has colons, too."""
    try:
        return found[0] if IPv6Address(found[0]).is_loopback else "<address>"
    except AddressValueError:
        return found[0]


def _first_line(words: str) -> str:
    return words.strip().split("\n", 1)[0][:_words_max]


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-_places_max:]
    return [f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in frames]
