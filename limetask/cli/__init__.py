"""The `limetask` command. One module a group of commands; `command` puts them together."""

from __future__ import annotations

import sys

_LIBRARIES = ("click", "rich")


def main() -> None:
    """Run the command; without the libraries that it needs, say which extra to install."""
    try:
        from limetask.cli.command import limetask
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _LIBRARIES:
            raise
        sys.exit(f'Error: the limetask command needs {exc.name}: pip install "limetask[cli]"')
    limetask()
