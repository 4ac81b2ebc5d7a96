"""What an installation sets: read once, from the environment, refused at start if wrong.

Environment names are the field names in capitals with the prefix `TENANT_BILLING_`; `DATABASE_URL`,
`KAFKA_BOOTSTRAP_SERVERS`, `STRIPE_API_KEY` and `STRIPE_API_BASE` are read by those names.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.records import IpAddress


class InputTopic(BaseModel):
    """One topic of switches' records and how to read it.

    `kind` is `calls` or `sip`. `sip_context`: outbound records on it may lack their header or source IP, which is
    then taken from SIP events (A10). `edge_addresses`: what the carrier's own network sends from; an INVITE seen
    coming from there is a forwarded copy and cannot say who the customer is. `home_country`: dialling rules for called
    numbers without `+`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    kind: Literal["calls", "sip"]
    format: Literal["canonical"] = "canonical"
    sip_context: bool = True
    edge_addresses: frozenset[IpAddress] = frozenset()
    home_country: Annotated[str, Field(pattern="^[A-Z]{2}$")] = "US"


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
    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "TENANT_BILLING_KAFKA_BOOTSTRAP_SERVERS"),
    )
    consumer_group: str = "tenant-billing"
    inputs: tuple[InputTopic, ...] = _DEFAULT_INPUTS
    statements_topic: str = "statements.closed"
    periods_topic: str = "periods.closed"
    require_log_append_time: bool = True  # False: embedded demo only (C1)

    batch_records_max: Annotated[int, Field(ge=1, le=50_000)] = 4000
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
    stripe_api_base: str | None = Field(None, validation_alias=AliasChoices("STRIPE_API_BASE"))
    stripe_requests_per_second_max: Annotated[float, Field(gt=0)] = 20.0
    invoicer_interval_seconds: Annotated[float, Field(gt=0)] = 1.0

    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0  # 0: no metrics endpoint
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def read(cls) -> Settings:
        """The settings that the environment gives.

        Raises:
            ValueError: one is wrong, or a name with our prefix is none of ours (misspelt, it would go unheard).
        """
        prefix = str(cls.model_config["env_prefix"])
        names = {f"{prefix}{field}".upper() for field in cls.model_fields}
        strangers = sorted(name for name in os.environ if name.startswith(prefix) and name not in names)  # noqa: TID251 (its one home)
        if strangers:
            raise ValueError(f"no such setting: {', '.join(strangers)}")
        return cls()

    @property
    def grace(self) -> timedelta:
        """How long after a month's end its records may still arrive and be in its statement."""
        return timedelta(hours=self.grace_hours)

    def inputs_of(self, kind: Literal["calls", "sip"]) -> tuple[InputTopic, ...]:
        """The input topics of one kind, in the order they were set."""
        return tuple(each for each in self.inputs if each.kind == kind)
