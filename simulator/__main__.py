"""`python -m simulator` is `sendense-simulator`."""

from simulator.cli import main

main()
