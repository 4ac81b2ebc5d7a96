"""How every Kafka client of ours shows who it is, and knows whom it talks to: TLS and SASL, said once.

Brokers' names are always checked against their certificates; no setting switches that off. What librdkafka has to say goes
through our logs: by itself it would write its own lines to standard error.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import faust
from faust.types.auth import CredentialsT
from pydantic import SecretStr

from pipeline.logs import LIBRDKAFKA

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"]


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """What the settings `TENANT_BILLING_KAFKA_…` say.

    Args:
        protocol: Kafka's own words; with `SASL_` a user and a password are shown, with `SSL` all of it is encrypted.
        mechanism: how the password is shown; SCRAM never sends it.
        username: the user at the broker.
        password: its password.
        ca_file: who vouches for the brokers, PEM; the system's authorities when None.
        certificate_file: our own certificate with its chain, PEM, where brokers ask for one.
        key_file: its private key, PEM.

    Raises:
        ValueError: something is missing, or is set that this protocol would not use.
    """

    protocol: SecurityProtocol = "PLAINTEXT"
    mechanism: SaslMechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if self.sasl != (self.username is not None) or self.sasl != (self.password is not None):
            raise ValueError(
                f"Kafka's protocol {self.protocol} goes {'with' if self.sasl else 'without'} a username and a password"
            )
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("Kafka's certificate file and key file go together")
        if not self.tls and (self.ca_file or self.certificate_file):
            raise ValueError(f"Kafka's protocol {self.protocol} takes no certificates")
        if self.sasl and not self.tls and self.mechanism == "PLAIN":
            raise ValueError("Kafka's mechanism PLAIN sends the password itself: use SASL_SSL or SCRAM")
        for file in (self.ca_file, self.certificate_file, self.key_file):
            if file is not None and not file.is_file():
                raise ValueError(f"there is no file {file}")

    @property
    def sasl(self) -> bool:
        """Whether a user and a password are shown."""
        return self.protocol.startswith("SASL_")

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.protocol.endswith("SSL")


UNSECURED: Final = KafkaSecurity()


def librdkafka_options(security: KafkaSecurity) -> dict[str, Any]:
    """What a client of confluent-kafka is given beside `bootstrap.servers`; it logs whenever it is polled."""
    options: dict[str, Any] = {
        "security.protocol": security.protocol,
        "logger": logging.getLogger(LIBRDKAFKA),
    }
    if security.sasl:
        assert security.username is not None
        assert security.password is not None
        options["sasl.mechanism"] = security.mechanism
        options["sasl.username"] = security.username
        options["sasl.password"] = security.password.get_secret_value()
    if security.tls:
        options["ssl.endpoint.identification.algorithm"] = "https"
        files = {
            "ssl.ca.location": security.ca_file,
            "ssl.certificate.location": security.certificate_file,
            "ssl.key.location": security.key_file,
        }
        options.update({name: str(file) for name, file in files.items() if file is not None})
    return options


def faust_credentials(security: KafkaSecurity) -> CredentialsT | None:
    """What a Faust app is given as `broker_credentials`; None: nothing to show, and nothing encrypted."""
    context = _tls_context(security) if security.tls else None
    if security.sasl:
        assert security.password is not None
        return faust.SASLCredentials(
            username=security.username,
            password=security.password.get_secret_value(),
            ssl_context=context,
            mechanism=security.mechanism,
        )
    return faust.auth.SSLCredentials(context) if context is not None else None


def _tls_context(security: KafkaSecurity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(security.ca_file) if security.ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if security.certificate_file is not None:
        context.load_cert_chain(security.certificate_file, security.key_file)
    return context
