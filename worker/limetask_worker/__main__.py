"""`python -m limetask_worker`: the same as `limetask-worker`."""

from limetask_worker.cli import main

if __name__ == "__main__":
    main()
