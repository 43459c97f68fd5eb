"""`python -m perfgate` is the console script, also from a plain checkout."""

from perfgate.cli.app import main

main()
