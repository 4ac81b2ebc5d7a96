"""`python -m invoicing.sandbox --port 12111`: the sandbox as a process of its own, until it is stopped."""

from __future__ import annotations

import argparse
import sys

from invoicing.sandbox.server import Sandbox


def main() -> None:
    """Serve on loopback; the address is the first line written."""
    parser = argparse.ArgumentParser(prog="python -m invoicing.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=12_111, help="0 takes a free port")
    sandbox = Sandbox(parser.parse_args().port)
    sys.stdout.write(f"{sandbox.url}\n")
    sys.stdout.flush()
    try:
        sandbox.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
