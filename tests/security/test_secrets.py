"""Secrets come from files or the environment: never from the command line, and they are never told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from pipeline.cli import app
from pipeline.settings import Settings

SECRETS = ("STRIPE_API_KEY", "TENANT_BILLING_KAFKA_PASSWORD")


@pytest.fixture(autouse=True)
def _without_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, *(f"{name}_FILE" for name in SECRETS), "DATABASE_URL", "DATABASE_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)


def options(command: Any, *path: str) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        for name in (*parameter.opts, parameter.name):
            yield " ".join(path), name.lower()
    for name, each in getattr(command, "commands", {}).items():
        yield from options(each, *path, name)


def test_no_command_takes_a_secret_as_an_argument() -> None:
    wrong = (
        "password",
        "secret",
        "token",
        "api_key",
        "api-key",
        "credential",
        "database_url",
        "database-url",
    )
    found = [
        (path, name) for path, name in options(typer.main.get_command(app)) if any(w in name for w in wrong)
    ]
    assert found == []


def test_each_secret_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("sk_test_fictional\n")
    monkeypatch.setenv("STRIPE_API_KEY_FILE", str(file))
    monkeypatch.setenv("TENANT_BILLING_KAFKA_PASSWORD_FILE", str(file))
    monkeypatch.setenv("TENANT_BILLING_KAFKA_USERNAME", "billing")
    monkeypatch.setenv("TENANT_BILLING_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("DATABASE_URL", "postgresql://billing@db.example.com:5432/billing?sslmode=verify-full")
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(file))
    settings = Settings.read()
    assert settings.stripe_api_key is not None
    assert settings.stripe_api_key.get_secret_value() == "sk_test_fictional"
    assert settings.kafka_security.password is not None
    assert settings.kafka_security.password.get_secret_value() == "sk_test_fictional"
    assert settings.database_url.get_secret_value() == (
        "postgresql://billing:sk_test_fictional@db.example.com:5432/billing?sslmode=verify-full"
    )
    assert "fictional" not in repr(settings) + str(settings) + repr(settings.kafka_security)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_given_twice_or_not_at_all_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = tmp_path / "secret"
    monkeypatch.setenv(f"{name}_FILE", str(file))
    with pytest.raises(ValueError, match=f"{name}_FILE cannot be read"):
        Settings.read()
    file.write_text("\n")
    with pytest.raises(ValueError, match=f"{name}_FILE is empty"):
        Settings.read()
    file.write_text("fictional")
    monkeypatch.setenv(name, "fictional")
    with pytest.raises(ValueError, match="not both"):
        Settings.read()


def test_a_database_password_stands_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("fictional")
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(file))
    monkeypatch.setenv("DATABASE_URL", "postgresql://billing:hidden@127.0.0.1/billing")
    with pytest.raises(ValueError, match="not in both") as refused:
        Settings.read()
    assert "hidden" not in str(refused.value)
    monkeypatch.setenv("DATABASE_URL", "hidden, and no address")
    with pytest.raises(ValueError, match="must be written as") as refused:
        Settings.read()
    assert "hidden" not in str(refused.value)


def test_a_wrong_setting_is_refused_without_telling_secrets(
    monkeypatch: pytest.MonkeyPatch, type_: Callable[..., str]
) -> None:
    monkeypatch.setenv("TENANT_BILLING_KAFKA_PASSWORD", "fictional")
    said = type_("postgresql://billing:fictional@127.0.0.1:1/billing", "account", "list", code=2)
    assert "username and a password" in said
    assert "fictional" not in said
    monkeypatch.delenv("TENANT_BILLING_KAFKA_PASSWORD")
    said = type_("postgresql://billing:fictional@127.0.0.1:1/billing", "account", "list", code=1)
    assert "fictional" not in said
