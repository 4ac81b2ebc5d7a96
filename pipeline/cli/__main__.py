"""`python -m pipeline.cli`: the command line without the installed script."""

from pipeline.cli import main

main()
