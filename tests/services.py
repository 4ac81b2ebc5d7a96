"""A service of the product as a process of a test's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.stack.child import Child


@contextmanager
def service(name: str, environment: Mapping[str, str], log: Path) -> Iterator[Child]:
    """Run `tenant-billing NAME` while the block runs; what fails inside is told with the end of its log."""
    with log.open("wb") as output:
        child = Child([sys.executable, "-m", "pipeline.cli", name], stdout=output, environment=environment)
        try:
            yield child
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()[-4000:]}") from None
        finally:
            child.stop(20)
