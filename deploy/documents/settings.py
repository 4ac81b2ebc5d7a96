"""`deploy/settings.md`: every setting by the name it has in the environment, its default and what it means."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any, Final

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from pipeline.settings import InputTopic, Settings
from schemas.formats import Format

SUBJECTS: Final = {
    "database_url": "Database and Kafka",
    "consumer_group": "Topics",
    "batch_records_max": "Reading call records",
    "grace_hours": "Closing months",
    "stripe_api_key": "Invoicing",
    "metrics_host": "Being watched",
}
"""The heading before a setting; the settings stand in the order of the code."""

INPUTS_EXAMPLE: Final = (
    {"topic": "calls.raw", "kind": "calls", "sip_context": False},
    {
        "topic": "calls.edge",
        "kind": "calls",
        "format": {"name": "opensips_cdr", "switch": "edge-2", "direction": "record"},
    },
)

_HEAD: Final = """<!-- Made from pipeline/settings.py by `make documents`; do not edit. -->

# Settings

Read once, from the environment, when a process starts. A wrong value, or a name with our prefix that is none of these,
is refused with exit code 2. Secrets may be in files, named by `…_FILE`; set one of the two.
"""


def page() -> str:
    """The whole page."""
    return "\n".join((_HEAD, *_tables(), *_inputs())) + "\n"


def variables(name: str, field: FieldInfo) -> tuple[str, ...]:
    """The names in the environment that a setting is read from, the usual one first."""
    if isinstance(field.validation_alias, AliasChoices):
        return tuple(str(choice) for choice in field.validation_alias.choices)
    return (f"{Settings.model_config['env_prefix']}{name}".upper(),)


def _tables() -> Iterator[str]:
    limits = Settings.model_json_schema(by_alias=False)["properties"]
    for name, field in Settings.model_fields.items():
        if name in SUBJECTS:
            before = "" if name == next(iter(SUBJECTS)) else "\n"
            yield f"{before}## {SUBJECTS[name]}\n\n| variable | default | values | meaning |\n|---|---|---|---|"
        read_from = " or ".join(f"`{variable}`" for variable in variables(name, field))
        yield f"| {read_from} | {_default(field)} | {_values(limits[name])} | {field.description} |"
    yield ""


def _inputs() -> Iterator[str]:
    yield "## One input\n"
    yield f"{inspect.getdoc(InputTopic)}\n"
    yield f"Its `format`: {inspect.getdoc(Format)}\n"
    yield "```sh"
    yield f"TENANT_BILLING_INPUTS='{json.dumps(INPUTS_EXAMPLE)}'\n```"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return "not set"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = json.dumps([each.model_dump(mode="json", include={"topic", "kind"}) for each in value])
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def _values(schema: dict[str, Any]) -> str:
    """What may be set, where it is not just any text."""
    [kind] = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"][:1]
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {kind[bound]:g}" for bound, sign in bounds.items() if bound in kind]
    return ", ".join(told) or {"boolean": "`true`, `false`", "array": "JSON"}.get(kind.get("type", ""), "")
