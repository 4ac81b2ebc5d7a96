"""Every generated document, by its path in the tree."""

from __future__ import annotations

import json

from deploy.documents import asyncapi, commands, settings
from deploy.documents.topic_schemas import TOPICS
from pipeline.metrics import documentation


def pages() -> dict[str, str]:
    """The text of each, as `make documents` writes it and a test compares it."""
    schemas = {f"schemas/json/{topic.name}.json": _json(topic.schema()) for topic in TOPICS}
    return schemas | {
        "schemas/asyncapi.json": _json(asyncapi.document()),
        "deploy/settings.md": settings.page(),
        "deploy/commands.md": commands.page(),
        "deploy/metrics.md": documentation.page(),
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
