"""Postgres behind TLS, with a password: told by `DATABASE_URL` and `DATABASE_PASSWORD_FILE`, and refused otherwise."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from deploy.stack.postgres import EmbeddedPostgres
from tests.security.certificates import Authority

PASSWORD = "fictional p@ss/word"
HBA = "hostssl all postgres 127.0.0.1/32 trust\nhostssl all billing 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class SecuredPostgres:
    port: int
    authority: Path
    password_file: Path

    def url(self, sslmode: str, authority: Path | None = None, host: str = "127.0.0.1") -> str:
        trusted = authority or self.authority
        return f"postgresql://billing@{host}:{self.port}/postgres?sslmode={sslmode}&sslrootcert={trusted}"


@pytest.fixture(scope="module")
def server() -> Iterator[SecuredPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="tenant-billing-tls-"))  # where the server's own user can read
    folder.chmod(0o755)
    authority = Authority(folder / "certificates")
    own = authority.certify("server")
    (folder / "certificates").chmod(0o755)
    if os.geteuid() == 0:
        os.chown(own.key, pwd.getpwnam("nobody").pw_uid, -1)
    own.key.chmod(0o600)
    hba = folder / "pg_hba.conf"
    hba.write_text(HBA)
    password_file = folder / "password"
    password_file.write_text(f"{PASSWORD}\n")
    options = (
        "fsync=off",
        "ssl=on",
        f"ssl_cert_file={own.certificate}",
        f"ssl_key_file={own.key}",
        f"hba_file={hba}",
    )
    running = EmbeddedPostgres(options=options).start()
    connection = psycopg2.connect(running.url())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("create role billing login superuser password %s", (PASSWORD,))
    connection.close()
    yield SecuredPostgres(running.port, authority.certificate, password_file)
    running.stop()
    shutil.rmtree(folder)


def test_the_schema_is_migrated_and_read_over_an_encrypted_connection(
    server: SecuredPostgres, type_: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(server.password_file))
    type_(server.url("verify-full"), "migrate")
    assert "bootstrap" in type_(server.url("verify-full"), "bootstrap", "status")


def test_without_encryption_with_a_stranger_or_with_another_password_nothing_is_said(
    server: SecuredPostgres, type_: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(server.password_file))
    stranger = Authority(tmp_path / "stranger").certificate
    assert "no encryption" in type_(server.url("disable"), "account", "list", code=1)
    assert "certificate verify failed" in type_(
        server.url("verify-full", stranger), "account", "list", code=1
    )
    assert "localhost" in type_(server.url("verify-full", host="localhost"), "account", "list", code=1)
    wrong = tmp_path / "wrong"
    wrong.write_text("another fictional word")
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(wrong))
    said = type_(server.url("verify-full"), "account", "list", code=1)
    assert "password authentication failed" in said
    assert "fictional" not in said
