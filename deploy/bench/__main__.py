"""`make bench`: run the parts, print their figures, and write them by name.

`ONLY=ingest` runs one part; `BENCH_JSON=FILE` writes all figures as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.bench import close, directory, formats, ingest, invoicing, load

Figures = dict[str, float]
PARTS: Final[dict[str, Callable[[Console], Figures]]] = {
    "ingest": ingest.run,
    "load": load.run,
    "formats": formats.run,
    "close": close.run,
    "directory": directory.run,
    "invoicing": invoicing.run,
}


def main() -> None:
    """Run what was asked for."""
    argparse.ArgumentParser(
        prog="python -m deploy.bench",
        description=__doc__,
        epilog=f"Parts: {', '.join(PARTS)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    console = Console()
    only = os.environ.get("ONLY", "")  # noqa: TID251 (make passes its variables through the environment)
    if only and only not in PARTS:
        console.print(f"no part {only!r}; there are: {', '.join(PARTS)}", style="red")
        sys.exit(2)
    figures: Figures = {}
    for name, part in PARTS.items():
        if name in (only, "") or not only:
            console.rule(name)
            figures |= part(console)
    for name, figure in figures.items():
        console.print(f"{name:32} {figure:.4g}", highlight=False)
    target = os.environ.get("BENCH_JSON", "")  # noqa: TID251 (same)
    if target:
        Path(target).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
