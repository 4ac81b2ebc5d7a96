"""The JSON Schema of each topic's messages: of the pydantic model, and of what is asked beyond it.

What comes in is described as it is read (`CallRecordOnWire`, `SipEnvelope`), what goes out as it is written. The
names say what a text holds: `…_at` an instant, `…cost` and `…_seconds` decimals, `…period` a month.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel

from deploy.documents import examples
from schemas.events import PeriodClosed, StatementClosed
from schemas.records import CallRecordOnWire, SipEnvelope

Schema = dict[str, Any]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DECIMAL: Final = r"^-?[0-9]+(\.[0-9]+)?$"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic by its default name, and what its messages are.

    `direction` is seen from here: `receive` is what switches send, `send` is what subscribers read.
    """

    name: str
    model: type[BaseModel]
    direction: Literal["receive", "send"]
    key: str
    conditions: Mapping[str, Any]
    examples: Callable[[], list[Schema]]

    def schema(self) -> Schema:
        """The JSON Schema of one message's value."""
        mode: Literal["validation", "serialization"] = (
            "validation" if self.direction == "receive" else "serialization"
        )
        made = self.model.model_json_schema(mode=mode)
        if self.direction == "send":
            for each in (made, *made.get("$defs", {}).values()):
                _say_what_is_written(each)
        return {"$schema": DIALECT} | made | dict(self.conditions) | {"examples": self.examples()}


def _present(name: str) -> Schema:
    return {"required": [name], "properties": {name: {"type": "string"}}}


def _where_direction(direction: str, then: Schema) -> Schema:
    return {"if": {"properties": {"direction": {"const": direction}}}, "then": then}


_CALL_CONDITIONS: Final = {
    "allOf": [
        _where_direction("inbound", _present("to_number")),
        _where_direction("outbound", {"anyOf": [_present("source_ip"), _present("call_id")]}),
    ]
}
_SIP_CONDITIONS: Final = {
    "anyOf": [_present("raw"), {"allOf": [_present("call_id"), _present("method")]}],
}

TOPICS: Final = (
    Topic(
        "calls.raw",
        CallRecordOnWire,
        "receive",
        "Any, or none; records of one call are best kept on one partition.",
        _CALL_CONDITIONS,
        examples.calls,
    ),
    Topic(
        "sip.raw", SipEnvelope, "receive", "Any, or none; the Call-ID is best.", _SIP_CONDITIONS, examples.sip
    ),
    Topic(
        "statements.closed",
        StatementClosed,
        "send",
        "The account's code, `/`, the tenant's Account ID (empty for unassigned usage).",
        {},
        examples.statements,
    ),
    Topic("periods.closed", PeriodClosed, "send", "The account's code.", {}, examples.periods),
)


def _say_what_is_written(schema: Schema) -> None:
    """Every field is always there, and what a text holds follows from its name."""
    schema["required"] = list(schema["properties"])
    for name, each in schema["properties"].items():
        for text in _texts(each):
            text.update(_named(name))


def _named(name: str) -> Schema:
    if name.endswith("_at") or name == "as_of":
        return {"format": "date-time"}
    if name.endswith(("cost", "_seconds")):
        return {"pattern": _DECIMAL}
    if name.endswith("period"):
        return {"pattern": r"^[0-9]{4}-(0[1-9]|1[0-2])$"}
    return {"currency": {"pattern": "^[A-Z]{3}$"}, "sha256": {"pattern": "^[0-9a-f]{64}$"}}.get(name, {})


def _texts(schema: Schema) -> list[Schema]:
    """The schema itself where it is of text, or those of its alternatives that are."""
    return [each for each in (schema, *schema.get("anyOf", ())) if each.get("type") == "string"]
