"""What README.md tells its reader to type, and a copy of the tree as a clone has it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import typer.main

from pipeline.cli import app
from pipeline.clock import utc_now
from schemas.periods import Period

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = Path(sys.executable).parent
_OUTSIDE: Final = ("make ", "tenant-billing", "docker ", "kubectl ", "python ", "pip ", "git ", ".ci/", "./")
_FENCED: Final = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SETTINGS: Final = re.compile(r"^(\w+=\S+ )+")
_INLINE: Final = re.compile(r"`([^`]+)`")


def commands_on(page: str) -> list[str]:
    """Every command that a page shows, once, in order: the lines of its blocks and what stands between back-quotes.

    Between back-quotes a command may stand without the program before it, as `period close` does.
    """
    blocks = [line for block in _FENCED.findall(page) for line in block.splitlines()]
    inline = [" ".join(words.split()) for words in _INLINE.findall(_FENCED.sub("", page))]
    named = [f"tenant-billing {words}" if _is_of_ours(words) else words for words in inline]
    shown = [re.split(r"\s+#", words)[0].strip() for words in (*blocks, *named)]
    return list(dict.fromkeys(words for words in shown if _SETTINGS.sub("", words).startswith(_OUTSIDE)))


def _is_of_ours(words: str) -> bool:
    return any(f"{words} ".startswith(f"{path} ") for path in _leaves())


def _leaves() -> Iterator[str]:
    for name, command in _children(typer.main.get_command(app)).items():
        below = _children(command)
        yield from (f"{name} {each}" for each in below) if below else (name,)


def _children(command: Any) -> Mapping[str, Any]:  # typer keeps its Click to itself
    return getattr(command, "commands", {})


def clone(target: Path) -> Path:
    """The files that are under version control, as they stand here; all but hidden folders, where there is no git."""
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    listed = git.stdout.split("\0") if git.returncode == 0 else map(str, _visible_files())
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def _visible_files() -> Iterator[Path]:
    for each in ROOT.iterdir():
        found = each.rglob("*") if each.is_dir() and not each.name.startswith(".") else [each]
        yield from (file.relative_to(ROOT) for file in found if "__pycache__" not in file.parts)


def months() -> dict[str, str]:
    """The months that the page means by its examples."""
    this = Period.of(utc_now())
    return {"2026-10": str(this.plus(-1)), "2026-11": str(this)}


def shell_environment(folder: Path) -> dict[str, str]:
    """A shell of somebody who has just cloned: nothing of ours is set, and the programs are in the PATH."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "JAVA_HOME", "TMPDIR") if name in os.environ}  # noqa: TID251 (a shell's own)
    path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"  # noqa: TID251 (a shell's own)
    return {**kept, "PATH": path, "PYTHONPATH": str(folder)}
