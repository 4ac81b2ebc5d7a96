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

SUBJECTS: Final[dict[str, dict[str, str]]] = {
    "Database and Kafka": {
        "database_url": "Postgres, as `postgresql://user@host:port/database`; TLS by libpq's own parameters (`?sslmode=verify-full`)",
        "database_password_file": "a file that holds the password, where the address has none",
        "kafka_bootstrap_servers": "the brokers to ask first, `host:port` and commas",
        "kafka_security_protocol": "how brokers are spoken to",
        "kafka_sasl_mechanism": "how a user is proven, with the `SASL_…` protocols",
        "kafka_username": "the user, with the `SASL_…` protocols",
        "kafka_password": "its password",
        "kafka_password_file": "a file that holds the password instead",
        "kafka_ca_file": "PEM: who may have signed the brokers' certificates; the system's authorities when not set",
        "kafka_certificate_file": "PEM: our own certificate, where brokers ask for one",
        "kafka_key_file": "PEM: its key",
    },
    "Topics": {
        "consumer_group": "the workers' consumer group, and the stem of the invoicer's",
        "inputs": "JSON: the topics to read, and how; below",
        "statements_topic": "where closed statements are told",
        "periods_topic": "where closed months are told",
        "require_log_append_time": "refuse input topics whose timestamps are not the broker's own; off for the embedded demo only",
    },
    "Reading call records": {
        "batch_records_max": "records in one transaction, at most",
        "unreadable_share_max": "a worker stops where more than this share of a topic's latest records cannot be read; never when not set",
        "fetch_bytes_max": "bytes taken from Kafka at once, at most",
        "session_timeout_seconds": "after how long without a sign of life a worker's partitions go to another",
        "resolver_interval_seconds": "how often held records are looked at",
        "sip_wait_seconds": "how long a SIP event may come after its record",
    },
    "Closing months": {
        "grace_hours": "how long after a month's end its records may arrive and be in its statement",
        "quarantine_wait_hours_max": "how long unrated and unreadable records hold a close up",
        "closer_interval_seconds": "how often a month is tried",
        "relay_interval_seconds": "how often waiting events are published",
        "months_ahead": "months made ahead of time",
    },
    "Invoicing": {
        "stripe_api_key": "the platform's secret key",
        "stripe_api_key_file": "a file that holds it instead",
        "stripe_api_base": "another address than Stripe's own, such as the sandbox's",
        "stripe_requests_per_second_max": "requests to Stripe, at most",
        "invoicer_interval_seconds": "how often due work is looked for",
    },
    "Being watched": {
        "metrics_host": "where `/metrics`, `/livez` and `/readyz` listen",
        "metrics_port": "on which port; 0: none of them",
        "observe_interval_seconds": "how often what is told is read anew",
        "stuck_seconds_max": "a partition that stands still for longer makes its worker not live",
        "log_level": "what is logged, and above",
    },
}

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
    for subject, meanings in SUBJECTS.items():
        yield f"## {subject}\n\n| variable | default | values | meaning |\n|---|---|---|---|"
        for name, meaning in meanings.items():
            field = Settings.model_fields[name]
            read_from = " or ".join(f"`{variable}`" for variable in variables(name, field))
            yield f"| {read_from} | {_default(field)} | {_values(limits[name])} | {meaning} |"
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
