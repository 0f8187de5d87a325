"""`python -m benchmarks`, which `scripts/bench` runs."""

from benchmarks.cli import main

main()
