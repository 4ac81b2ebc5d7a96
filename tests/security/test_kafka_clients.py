"""Every Kafka client of the product is built with the installation's security: none is forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.kafka_security import KafkaSecurity, SaslMechanism, SecurityProtocol, librdkafka_options

PIPELINE = Path(__file__).parents[2] / "pipeline"


def unsecured(source: str) -> Iterator[int]:
    """Lines that configure a client, or hand an address on, without saying how it is secured."""
    for node in ast.walk(ast.parse(source)):
        said = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        said |= {name.attr for name in ast.walk(node) if isinstance(name, ast.Attribute)}
        if isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if "bootstrap.servers" in keys and "librdkafka_options" not in said:
                yield node.lineno
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute):
            given = [*node.args, *(word.value for word in node.keywords)]
            hands_on = any(
                isinstance(each, ast.Attribute) and each.attr == "kafka_bootstrap_servers" for each in given
            )
            if hands_on and "kafka_security" not in said:
                yield node.lineno


def test_every_client_is_given_the_security_of_the_settings() -> None:
    found = {
        f"{file.relative_to(PIPELINE)}:{line}"
        for file in PIPELINE.rglob("*.py")
        for line in unsecured(file.read_text())
    }
    assert found == set()


def test_a_client_without_it_would_be_found() -> None:
    assert list(unsecured("Consumer({'bootstrap.servers': servers})"))
    assert list(unsecured("KafkaLogs(settings.kafka_bootstrap_servers)"))


@pytest.mark.parametrize(
    ("protocol", "mechanism", "given", "reason"),
    [
        ("SASL_SSL", "SCRAM-SHA-512", {}, "username and a password"),
        ("PLAINTEXT", "SCRAM-SHA-512", {"username": "billing"}, "username and a password"),
        ("SSL", "SCRAM-SHA-512", {"certificate_file": Path(__file__)}, "go together"),
        ("PLAINTEXT", "SCRAM-SHA-512", {"ca_file": Path(__file__)}, "takes no certificates"),
        ("SSL", "SCRAM-SHA-512", {"ca_file": Path("/none.pem")}, "there is no file /none.pem"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(
    protocol: SecurityProtocol, mechanism: SaslMechanism, given: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        KafkaSecurity(protocol, mechanism, **given)  # type: ignore[arg-type]


def test_the_name_of_the_broker_is_always_checked() -> None:
    options = librdkafka_options(KafkaSecurity("SSL"))
    assert options["ssl.endpoint.identification.algorithm"] == "https"
