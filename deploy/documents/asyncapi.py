"""The AsyncAPI 3.0 document: which topics there are, which way messages go, and with which headers.

Payloads are referred to, not repeated: `json/<topic>.json` beside it is each topic's schema.
"""

from __future__ import annotations

import json
from typing import Any, Final

from deploy.documents import examples
from deploy.documents.topic_schemas import TOPICS, Topic
from rollup.announcement import Announcement

Document = dict[str, Any]
_DESCRIPTION: Final = (
    "Switches send call records and SIP events; when a UTC month closes, its statements are told. Input topics may "
    "have other names and switches' own formats (`TENANT_BILLING_INPUTS`); this is the canonical form. Delivery is at "
    "least once both ways: records are counted once by `switch`, `id` and day, subscribers deduplicate by `ce_id`. "
    "What may change and what may not is in `versioning.md`."
)
_ANNOUNCED: Final = {
    "statements.closed": examples.statement_announced,
    "periods.closed": examples.period_announced,
}


def document() -> Document:
    """The whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tenant billing",
            "version": "1.0.0",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {_name(topic): _channel(topic) for topic in TOPICS},
        "operations": {f"{topic.direction}_{_name(topic)}": _operation(topic) for topic in TOPICS},
        "components": {"messages": {topic.model.__name__: _message(topic) for topic in TOPICS}},
    }


def _name(topic: Topic) -> str:
    return topic.name.replace(".", "_")


def _channel(topic: Topic) -> Document:
    message = topic.model.__name__
    return {
        "address": topic.name,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }


def _operation(topic: Topic) -> Document:
    channel = f"#/channels/{_name(topic)}"
    return {
        "action": topic.direction,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{topic.model.__name__}"}],
    }


def _message(topic: Topic) -> Document:
    message: Document = {
        "name": topic.model.__name__,
        "summary": (topic.model.__doc__ or "").splitlines()[0],
        "contentType": "application/json",
        "payload": {"$ref": f"./json/{topic.name}.json"},
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}}},
    }
    if topic.name in _ANNOUNCED:
        message["headers"] = _headers(_ANNOUNCED[topic.name]())
    return message


def _headers(event: Announcement) -> Document:
    """CloudEvents attributes in Kafka's binary mode; those that are the same for every event are said to be."""
    headers: dict[str, str] = json.loads(event.headers)
    varying = {"ce_id": {}, "ce_subject": {}, "ce_time": {"format": "date-time"}}
    properties = {
        name: {"type": "string"} | varying.get(name, {"const": value}) for name, value in headers.items()
    }
    return {"type": "object", "required": list(headers), "properties": properties, "examples": [headers]}
