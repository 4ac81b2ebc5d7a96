"""What `tenant-billing` says of itself when asked in a shell."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from deploy.stack.mock_broker import EmbeddedBroker
from pipeline.cli import app, output
from pipeline.cli.examples import EXAMPLES

PROGRAM = str(Path(sys.executable).parent / "tenant-billing")
SUBJECTS = ["Running it", "Who owns what", "Call records", "Months and statements", "Invoices"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "NO_COLOR"}}  # noqa: TID251 (a shell's own)
    return subprocess.run(
        [PROGRAM, *arguments], env=inherited | environment, capture_output=True, text=True, check=False
    )


def test_every_command_is_listed_once_under_a_subject() -> None:
    _, *sections = re.split(r"^(\S.*):\n", run("--help").stdout, flags=re.MULTILINE)
    told = dict(zip(sections[::2], sections[1::2], strict=True))
    assert list(told) == ["Options", *SUBJECTS]
    listed = [
        name for subject in SUBJECTS for name in re.findall(r"^  ([a-z]+)  ", told[subject], re.MULTILINE)
    ]
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_help_gives_examples_and_exit_codes() -> None:
    said = " ".join(run("--help").stdout.split())
    assert "Examples: tenant-billing number assign" in said
    assert f"0 done; {output.EXIT_REFUSED} refused" in said
    assert f"{output.EXIT_WAITING} not now" in said


def leaves(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    for name, each in command.commands.items():
        if hasattr(each, "commands"):
            yield from leaves(each, *path, name)
        else:
            yield " ".join((*path, name)), each


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_every_command_has_an_example_and_no_other_has() -> None:
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_in_a_commands_help_is_one_that_it_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(EXAMPLES[name])
    for file in (each for each in arguments if re.search(r"\.(csv|jsonl|yaml)$", each)):
        Path(file).touch()
    with COMMANDS[name].make_context(name, list(arguments)) as context:
        told = " ".join(COMMANDS[name].get_help(context).split())
    assert told.endswith(" ".join(f"Example: tenant-billing {name} {EXAMPLES[name]}".split()))


def test_whatever_is_shown_can_be_had_as_json() -> None:
    """Only what changes something or runs has nothing to print; it says what it did on standard error."""
    verbs = {
        "add",
        "assign",
        "release",
        "change",
        "end",
        "apply",
        "link",
        "unlink",
        "resume",
        "customer",
        "run",
    }
    verbs |= {
        "finish",
        "reset",
        "retire",
        "validate-address",
        "retry",
        "refresh",
        "receive",
        "resolve-event",
        "discard",
    }
    verbs |= {"migrate", "worker", "invoicer", "sandbox"}
    without = {
        name
        for name, command in COMMANDS.items()
        if not any("--json" in each.opts for each in command.params)
    }
    assert {name for name in without if name.split()[-1] not in verbs} == set()


@pytest.mark.parametrize(
    ("shell", "typed"),
    [
        ("bash", {"COMP_WORDS": "tenant-billing stat", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "tenant-billing stat"}),
    ],
)
def test_a_shell_completes_a_command(shell: str, typed: dict[str, str]) -> None:
    said = run(_TENANT_BILLING_COMPLETE=f"complete_{shell}", **typed)
    assert "statement" in said.stdout
    assert "invoice" not in said.stdout.split()


def test_no_colours_where_nobody_looks() -> None:
    refused = run("period", "status", DATABASE_URL="postgresql://postgres@127.0.0.1:1/none")
    assert refused.returncode == output.EXIT_REFUSED
    assert refused.stderr.startswith("refused: ")
    assert "\x1b" not in refused.stderr + run("--help").stdout
    assert run("period", "close").returncode == 2


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What a command says where somebody looks."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [PROGRAM, *arguments],
        env={"PATH": os.defpath, "TERM": "xterm", "DATABASE_URL": "postgresql://postgres@127.0.0.1:1/none"}
        | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # how a terminal says that its program has ended
            while more := os.read(ours, 4096):
                said += more
    os.close(ours)
    return said.decode()


def test_colours_are_for_a_terminal_that_wants_them() -> None:
    assert "\x1b[31m" in on_a_terminal("period", "status")
    assert "\x1b[31m" not in on_a_terminal("period", "status", NO_COLOR="1")


def test_long_work_shows_on_a_terminal_how_far_it_is_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_text("{}\n" * 3)
    with EmbeddedBroker({"calls.raw": 1}) as broker:
        said = on_a_terminal(
            "publish", "calls.raw", str(file), KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap_servers
        )
        assert "publishing to calls.raw" in said
        assert "3/3" in said
        quiet = run("publish", "calls.raw", str(file), KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap_servers)
    assert quiet.stderr == "3 of 3 records were acknowledged\n"


def test_kafka_away_is_told_once_with_its_address() -> None:
    for command in (("topics", "check"), ("position", "list")):
        refused = run(*command, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
        [line] = refused.stderr.splitlines()
        assert line.startswith("refused: Kafka does not answer at 127.0.0.1:1: ")
        assert refused.returncode == output.EXIT_REFUSED
