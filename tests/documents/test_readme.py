"""README.md, as somebody tries it who has just cloned: each command on the page is run, or is named with who runs it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.documents.page import PROGRAMS, ROOT, clone, commands_on, months, shell_environment
from tests.documents.test_readme_for_real import FOR_REAL

PAGE: Final = (ROOT / "README.md").read_text()
# What each command of "Trying it by hand" says, typed one after the other.
BY_HAND: Final = {
    "tenant-billing publish calls.raw FILE.jsonl": "1 of 1 records were acknowledged",
    "tenant-billing usage": "inbound_conversational",
    "tenant-billing unattributed": "none",
    "tenant-billing explain sbc-nyc-1 RECORD_ID": "an inbound call to a number that is not toll-free",
    "tenant-billing quarantine list": "quarantine: nothing",
    "tenant-billing tenant history northstar acme.example.com": "number_left",
    "tenant-billing number assign northstar +12125550123 --tenant acme.example.com": "is acme.example.com's from",
    "tenant-billing period status": "closed",
    "tenant-billing statement show northstar 2026-10 --tenant acme.example.com": "peak_concurrent_channels",
    "tenant-billing invoice preview northstar acme.example.com 2026-11": "Cloud PBX: 1 at USD 10",
    "tenant-billing invoice list": "bigcustomer.mypbx.com",
    "tenant-billing conservation": "received",
    "tenant-billing --help": "Who owns what",
}
NO_LISTING: Final = ("publish", "number assign", "--help")
# The table "When things go wrong": what it says is typed on the same stack, where nothing has.
WHEN_WRONG: Final = {
    "tenant-billing period close": ("period close 2026-11", 3, "takes records until"),
    "tenant-billing quarantine replay": ("quarantine replay", 0, "no such record is in quarantine"),
    "tenant-billing quarantine replay --dry-run": ("quarantine replay --dry-run", 0, "no such record"),
    "tenant-billing reconcile": ("reconcile", 0, "none"),
    "tenant-billing number assign": ("number assign --help", 0, "from now on"),
    "tenant-billing ip assign": ("ip assign northstar 192.0.2.77", 0, "from"),
    "tenant-billing position reset TOPIC --to-start": (
        "position reset calls.raw --to-start",
        1,
        "every position fits its log",
    ),
    "tenant-billing invoice retry STATEMENT": (
        "invoice retry 9934a1ef-08c3-1238-9ba8-022c7a011cae",
        1,
        "is no invoice that can be tried again",
    ),
}
# Too long, or not for this machine: the file that runs it, and words of that file that do.
ELSEWHERE: Final = {
    "make demo": (".ci/run", "step 'demo' make demo"),
    "make test": (".ci/run", "make test"),
    "make check": (".ci/run", "step 'checks' make check"),
    ".ci/run": (".ci/run", "set -euo pipefail"),  # it runs this test
    "docker compose up --wait": (
        "tests/deployment/test_compose.py",
        "def test_each_service_runs_as_written_and_becomes_healthy_by_its_own_check",
    ),
    "make faults": ("tests/faults/test_campaign.py", '"-m", "deploy.faults"'),
    "make invoice-faults": ("tests/invoicing/test_campaign.py", "deploy.invoice_faults"),
    "make documents": (
        "tests/documents/test_documents.py",
        "def test_a_generated_document_is_what_the_code_says",
    ),
}
SHORT_RUNS: Final = {
    "make fuzz": ({"FUZZ_SECONDS": "1", "SEED": "1"}, "findings 0"),
    "make bench": ({"ONLY": "formats"}, "sip_raw_us"),
}
PATIENCE_SECONDS: Final = 90.0


def test_every_command_on_the_page_is_tried_or_named_with_who_tries_it() -> None:
    tried = {"make up", *BY_HAND, *WHEN_WRONG, *FOR_REAL, *ELSEWHERE, *SHORT_RUNS}
    shown = set(commands_on(PAGE))
    assert shown - tried == set(), "on the page, and nobody tries it"
    assert tried - shown == set(), "tried, and not on the page any more"


def test_commands_are_found_in_blocks_and_between_back_quotes_and_nothing_else_is() -> None:
    page = "`DATABASE_URL=… tenant-billing\n  migrate`, `period close`, `offset_gap`, `period`\n```\nmake demo  # all\nusage +\n```\n"
    assert commands_on(page) == [
        "make demo",
        "DATABASE_URL=… tenant-billing migrate",
        "tenant-billing period close",
    ]


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_is_not_tried_here_is_run_where_it_is_said(command: str) -> None:
    file, words = ELSEWHERE[command]
    assert words in (ROOT / file).read_text()


@pytest.mark.parametrize("command", sorted(each for each in commands_on(PAGE) if each.startswith("make ")))
def test_make_knows_what_the_page_tells_to_make(command: str) -> None:
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"],
        cwd=ROOT,
        env=make_environment(ROOT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "python -m" in done.stdout or "bin/" in done.stdout


def test_what_the_demo_is_said_to_print_adds_up_and_is_in_its_words() -> None:
    [line] = re.findall(r"^received .*$", PAGE, re.MULTILINE)
    received, *parts = [int(figure.replace(",", "")) for figure in re.findall(r"[\d,]+", line)]
    assert received == sum(parts)
    told = (ROOT / "deploy/sample/report.py").read_text()
    for part in re.findall(r"[a-z]+", line)[1:]:
        assert f'"{part}"' in told
    assert "Every count is what the generator knows." in (ROOT / "deploy/demo.py").read_text()


def make_environment(folder: Path) -> dict[str, str]:
    """Nothing of a `make` around us gets in."""
    return shell_environment(folder)


@dataclass
class Shell:
    """A shell in the clone, with what `make up` said to paste."""

    folder: Path
    exports: str = ""
    said: dict[str, str] = field(default_factory=dict)

    def type(self, line: str) -> tuple[int, str, str]:
        """Exit code, standard output and all that was said."""
        for stands, means in self.said.items():
            line = line.replace(stands, means)
        done = subprocess.run(
            ["bash", "-c", f"{self.exports}\n{line}"],
            cwd=self.folder,
            env=shell_environment(self.folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        return done.returncode, done.stdout, done.stdout + done.stderr

    def answers(self, line: str, words: str, code: int = 0) -> None:
        """What is under way, such as a record just sent or a month that closes, is waited for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        found = self.type(line)
        while words not in found[2] and time.monotonic() < deadline:
            time.sleep(0.5)
            found = self.type(line)
        assert words in found[2], (line, found)
        assert found[0] == code, (line, found)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A clone with `make up` running, the environment pasted, what it names put for the page's words; stopped by Ctrl-C."""
    folder = clone(tmp_path_factory.mktemp("clone"))
    command = [
        "make",
        "-o",
        ".venv/ready",
        "up",
        f"BIN={PROGRAMS}",
    ]  # set up already: this is the environment
    with subprocess.Popen(
        command,
        cwd=folder,
        env=make_environment(folder) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as up:
        try:
            yield _opened(folder, _read_until(up, "Ctrl-C stops everything"))
        finally:
            children = psutil.Process(up.pid).children(recursive=True)
            os.killpg(up.pid, signal.SIGINT)
            assert up.stdout is not None
            assert "stopping" in up.stdout.read()
            assert psutil.wait_procs(children, timeout=30)[1] == []


def _opened(folder: Path, said: str) -> Shell:
    exports = "\n".join(line for line in said.splitlines() if line.startswith("export "))
    [file] = re.findall(r"tenant-billing publish calls\.raw (\S+)$", said, re.MULTILINE)
    [record] = re.findall(r"tenant-billing explain sbc-nyc-1 (\S+)$", said, re.MULTILINE)
    return Shell(folder, exports, {"FILE.jsonl": file, "RECORD_ID": record, **months()})


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it ended before it said {words!r}:\n{said}")


@pytest.mark.slow
def test_each_command_to_try_by_hand_does_what_the_page_says(shell: Shell) -> None:
    for command, words in BY_HAND.items():
        shell.answers(command, words)
    for command in BY_HAND:
        if not command.removeprefix("tenant-billing ").startswith(NO_LISTING):
            code, out, said = shell.type(f"{command} --json")
            assert code == 0, said
            assert json.loads(out) or "unattributed" in command or "quarantine" in command


@pytest.mark.slow
@pytest.mark.parametrize("command", WHEN_WRONG)
def test_each_command_for_when_things_go_wrong_answers(shell: Shell, command: str) -> None:
    typed, code, words = WHEN_WRONG[command]
    shell.answers(f"tenant-billing {typed}", words, code)


@pytest.mark.slow
@pytest.mark.parametrize("command", SHORT_RUNS)
def test_what_may_run_for_minutes_is_run_for_a_moment(command: str) -> None:
    settings, words = SHORT_RUNS[command]
    line = [*shlex.split(command), "-o", ".venv/ready", f"BIN={PROGRAMS}"]
    done = subprocess.run(
        line, cwd=ROOT, env=make_environment(ROOT) | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
