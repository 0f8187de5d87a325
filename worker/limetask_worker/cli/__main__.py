"""`python -m limetask_worker.cli`: the same as `limetask-worker`."""

from limetask_worker.cli import main

if __name__ == "__main__":
    main()
