"""`python -m limetask`: the same as `limetask`."""

from limetask.cli import main

if __name__ == "__main__":
    main()
