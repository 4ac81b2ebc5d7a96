"""What an installation sets: read once, from the environment, refused at start if wrong.

Environment names are the field names in capitals with the prefix `TENANT_BILLING_`; `DATABASE_URL`,
`DATABASE_PASSWORD_FILE`, `KAFKA_BOOTSTRAP_SERVERS`, `STRIPE_API_KEY`, `STRIPE_API_KEY_FILE` and `STRIPE_API_BASE` are
read by those names. A secret may be in a file, named by `…_FILE`, so that no environment has to carry it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from pipeline.kafka_security import KafkaSecurity, SaslMechanism, SecurityProtocol
from schemas.formats import Format, refusal
from schemas.records import IpAddress


class InputTopic(BaseModel):
    """One topic of switches' records and how to read it.

    `kind` is `calls` or `sip`. `sip_context`: outbound records on it may lack their header or source IP, which is
    then taken from SIP events (A10). `edge_addresses`: what the carrier's own network sends from; an INVITE seen
    coming from there is a forwarded copy and cannot say who the customer is. `home_country`: dialling rules for called
    numbers without `+`. `format`: the dialect of the switch and what its records do not say, a name or an object
    (schemas/formats/dialect.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    kind: Literal["calls", "sip"]
    format: Format = Format()
    sip_context: bool = True
    edge_addresses: frozenset[IpAddress] = frozenset()
    home_country: Annotated[str, Field(pattern="^[A-Z]{2}$")] = "US"

    @model_validator(mode="after")
    def _readable(self) -> InputTopic:
        reason = refusal(self.kind, self.format)
        if reason is not None:
            raise ValueError(f"input {self.topic}: {reason}")
        return self


_DEFAULT_INPUTS = (InputTopic(topic="calls.raw", kind="calls"), InputTopic(topic="sip.raw", kind="sip"))


class Settings(BaseSettings):
    """All settings; durations carry their unit in their name."""

    model_config = SettingsConfigDict(
        env_prefix="TENANT_BILLING_",
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    database_url: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/tenant_billing"),
        validation_alias=AliasChoices("DATABASE_URL", "TENANT_BILLING_DATABASE_URL"),
    )
    """Postgres, as `postgresql://user@host:port/database`; TLS by libpq's own parameters (`?sslmode=verify-full`)."""
    database_password_file: Path | None = Field(None, validation_alias=AliasChoices("DATABASE_PASSWORD_FILE"))
    """A file that holds the password, where the address has none."""
    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "TENANT_BILLING_KAFKA_BOOTSTRAP_SERVERS"),
    )
    """The brokers to ask first, `host:port` and commas."""
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    """How brokers are spoken to."""
    kafka_sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    """How a user is proven, with the `SASL_…` protocols."""
    kafka_username: str | None = None
    """The user, with the `SASL_…` protocols."""
    kafka_password: SecretStr | None = None
    """Its password."""
    kafka_password_file: Path | None = None
    """A file that holds the password instead."""
    kafka_ca_file: Path | None = None
    """PEM: who may have signed the brokers' certificates; the system's authorities when not set."""
    kafka_certificate_file: Path | None = None
    """PEM: our own certificate, where brokers ask for one."""
    kafka_key_file: Path | None = None
    """PEM: its key."""

    consumer_group: str = "tenant-billing"
    """The workers' consumer group, and the stem of the invoicer's."""
    inputs: tuple[InputTopic, ...] = _DEFAULT_INPUTS
    """JSON: the topics to read, each as *One input* says."""
    statements_topic: str = "statements.closed"
    """Where closed statements are told."""
    periods_topic: str = "periods.closed"
    """Where closed months are told."""
    require_log_append_time: bool = True
    """Refuse input topics whose timestamps are not the broker's own; off for the embedded demo only (C1)."""

    batch_records_max: Annotated[int, Field(ge=1, le=50_000)] = 4000
    """Records read from Kafka at once, at most."""
    unreadable_share_max: Annotated[float, Field(gt=0, lt=1)] | None = None
    """A worker stops where more than this share of a topic's latest records cannot be read; never when not set."""
    fetch_bytes_max: Annotated[int, Field(ge=65_536)] = 4 * 1024 * 1024
    """Bytes taken from Kafka at once, at most."""
    session_timeout_seconds: Annotated[float, Field(ge=1)] = 6.0
    """After how long without a sign of life a worker's partitions go to another."""
    resolver_interval_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often held records are looked at."""
    sip_wait_seconds: Annotated[float, Field(gt=0)] = 300.0
    """How long a SIP event may come after its record (A10)."""

    grace_hours: Annotated[float, Field(ge=0)] = 48.0
    """How long after a month's end its records may arrive and be in its statement (C1)."""
    quarantine_wait_hours_max: Annotated[float, Field(ge=0)] = 24.0
    """How long unrated and unreadable records hold a close up (C4)."""
    closer_interval_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How often a month is tried."""
    relay_interval_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often waiting events are published."""
    months_ahead: Annotated[int, Field(ge=1, le=24)] = 3
    """Months made ahead of time."""

    stripe_api_key: SecretStr | None = Field(None, validation_alias=AliasChoices("STRIPE_API_KEY"))
    """The platform's secret key."""
    stripe_api_key_file: Path | None = Field(None, validation_alias=AliasChoices("STRIPE_API_KEY_FILE"))
    """A file that holds it instead."""
    stripe_api_base: str | None = Field(None, validation_alias=AliasChoices("STRIPE_API_BASE"))
    """Another address than Stripe's own, such as the sandbox's."""
    stripe_requests_per_second_max: Annotated[float, Field(gt=0)] = 20.0
    """Requests to Stripe, at most."""
    invoicer_interval_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often due work is looked for."""

    metrics_host: str = "127.0.0.1"
    """Where `/metrics`, `/livez` and `/readyz` listen."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """On which port; 0: none of them."""
    observe_interval_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How often what is told is read anew."""
    stuck_seconds_max: Annotated[float, Field(gt=0)] = 120.0
    """A partition that stands still for longer makes its worker not live."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged, and above."""

    @classmethod
    def read(cls) -> Settings:
        """The settings that the environment gives.

        Raises:
            ValueError: one is wrong, a name with our prefix is none of ours (misspelt, it would go unheard), or
                the file of a secret cannot be read.
        """
        prefix = str(cls.model_config["env_prefix"])
        names = {f"{prefix}{field}".upper() for field in cls.model_fields}
        strangers = sorted(name for name in os.environ if name.startswith(prefix) and name not in names)  # noqa: TID251 (its one home)
        if strangers:
            raise ValueError(f"no such setting: {', '.join(strangers)}")
        settings = _with_secrets_from_files(cls())
        _ = settings.kafka_security  # refused here, if at all
        return settings

    @property
    def grace(self) -> timedelta:
        """How long after a month's end its records may still arrive and be in its statement (C1)."""
        return timedelta(hours=self.grace_hours)

    @property
    def kafka_security(self) -> KafkaSecurity:
        """How Kafka clients show who they are.

        Raises:
            ValueError: the settings contradict one another.
        """
        return KafkaSecurity(
            self.kafka_security_protocol,
            self.kafka_sasl_mechanism,
            self.kafka_username,
            self.kafka_password,
            self.kafka_ca_file,
            self.kafka_certificate_file,
            self.kafka_key_file,
        )

    def inputs_of(self, kind: Literal["calls", "sip"]) -> tuple[InputTopic, ...]:
        """The input topics of one kind, in the order they were set."""
        return tuple(each for each in self.inputs if each.kind == kind)


def _with_secrets_from_files(settings: Settings) -> Settings:
    """With the secrets that `…_FILE` names, so that no environment has to carry them."""
    secrets: dict[str, SecretStr] = {}
    if settings.stripe_api_key_file is not None:
        _refuse_both(settings.stripe_api_key, "STRIPE_API_KEY")
        secrets["stripe_api_key"] = SecretStr(_secret("STRIPE_API_KEY_FILE", settings.stripe_api_key_file))
    if settings.kafka_password_file is not None:
        _refuse_both(settings.kafka_password, "TENANT_BILLING_KAFKA_PASSWORD")
        password = _secret("TENANT_BILLING_KAFKA_PASSWORD_FILE", settings.kafka_password_file)
        secrets["kafka_password"] = SecretStr(password)
    if settings.database_password_file is not None:
        password = _secret("DATABASE_PASSWORD_FILE", settings.database_password_file)
        secrets["database_url"] = SecretStr(
            _with_password(settings.database_url.get_secret_value(), password)
        )
    return settings.model_copy(update=secrets)


def _refuse_both(secret: SecretStr | None, name: str) -> None:
    if secret is not None:
        raise ValueError(f"set {name} or {name}_FILE, not both")


def _secret(name: str, file: Path) -> str:
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} cannot be read ({type(error).__name__})") from None
    if not secret:
        raise ValueError(f"{name} is empty")
    return secret


def _with_password(url: str, password: str) -> str:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the URL itself may hold a secret: it is not quoted
        raise ValueError("DATABASE_URL must be written as postgresql://user@host:port/database") from None
    if parsed.password is not None:
        raise ValueError("set the password in DATABASE_URL or in DATABASE_PASSWORD_FILE, not in both")
    return parsed.set(password=password).render_as_string(hide_password=False)
