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
        env_prefix="TENANT_BILLING_", frozen=True, extra="forbid", populate_by_name=True
    )

    database_url: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/tenant_billing"),
        validation_alias=AliasChoices("DATABASE_URL", "TENANT_BILLING_DATABASE_URL"),
    )
    database_password_file: Path | None = Field(None, validation_alias=AliasChoices("DATABASE_PASSWORD_FILE"))
    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "TENANT_BILLING_KAFKA_BOOTSTRAP_SERVERS"),
    )
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    kafka_sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    kafka_password_file: Path | None = None
    kafka_ca_file: Path | None = None  # PEM; the system's authorities when not set
    kafka_certificate_file: Path | None = None  # our own, where brokers ask for one
    kafka_key_file: Path | None = None
    consumer_group: str = "tenant-billing"
    inputs: tuple[InputTopic, ...] = _DEFAULT_INPUTS
    statements_topic: str = "statements.closed"
    periods_topic: str = "periods.closed"
    require_log_append_time: bool = True  # False: embedded demo only (C1)

    batch_records_max: Annotated[int, Field(ge=1, le=50_000)] = 4000
    # A worker stops where more than this share of a topic's latest records cannot be read; None: it goes on, always.
    unreadable_share_max: Annotated[float, Field(gt=0, lt=1)] | None = None
    fetch_bytes_max: Annotated[int, Field(ge=65_536)] = 4 * 1024 * 1024
    session_timeout_seconds: Annotated[float, Field(ge=1)] = 6.0
    resolver_interval_seconds: Annotated[float, Field(gt=0)] = 1.0
    sip_wait_seconds: Annotated[float, Field(gt=0)] = (
        300.0  # A10: how long a SIP event may come after its record
    )

    grace_hours: Annotated[float, Field(ge=0)] = 48.0  # cutoff = period end + grace
    quarantine_wait_hours_max: Annotated[float, Field(ge=0)] = 24.0  # C4
    closer_interval_seconds: Annotated[float, Field(gt=0)] = 30.0
    relay_interval_seconds: Annotated[float, Field(gt=0)] = 1.0
    months_ahead: Annotated[int, Field(ge=1, le=24)] = 3

    stripe_api_key: SecretStr | None = Field(None, validation_alias=AliasChoices("STRIPE_API_KEY"))
    stripe_api_key_file: Path | None = Field(None, validation_alias=AliasChoices("STRIPE_API_KEY_FILE"))
    stripe_api_base: str | None = Field(None, validation_alias=AliasChoices("STRIPE_API_BASE"))
    stripe_requests_per_second_max: Annotated[float, Field(gt=0)] = 20.0
    invoicer_interval_seconds: Annotated[float, Field(gt=0)] = 1.0

    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0  # /metrics, /livez and /readyz; 0: none of them
    observe_interval_seconds: Annotated[float, Field(gt=0)] = 10.0  # how often what is told is read anew
    stuck_seconds_max: Annotated[float, Field(gt=0)] = 120.0  # longer: not live
    log_level: Literal["debug", "info", "warning", "error"] = "info"

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
        """How long after a month's end its records may still arrive and be in its statement."""
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
