"""`deploy/commands.md`: the command line's own help, as one page."""

from __future__ import annotations

import re
from typing import Final

import typer
from typer.cli import get_docs_for_click

from pipeline.cli import app

_HEAD: Final = "<!-- Made from pipeline/cli by `make documents`; do not edit. -->\n\n"
_EXAMPLE: Final = re.compile(r"^Example: (.+)$", re.MULTILINE)
_PLAIN_BLOCK: Final = re.compile("\b\n((?:.+\n)+)")


def page() -> str:
    """The whole page."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="tenant-billing")
    text = _EXAMPLE.sub(r"Example:\n\n```console\n\1\n```", text)
    return _HEAD + _PLAIN_BLOCK.sub(r"```console\n\1```\n", text).rstrip() + "\n"
