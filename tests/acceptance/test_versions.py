"""The scripts that run the tests with other Pythons: what they say where there is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
NOBODY = 65534


def test_a_python_that_is_not_here_is_skipped_with_a_word() -> None:
    """That is no failure, and the way to have it is told."""
    ran = subprocess.run([SCRIPTS / "versions", "3.99"], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr.startswith("versions: 3.99: skipped, it is not on this machine (scripts/chroot-python")


def test_what_is_run_is_there() -> None:
    """Every file and test that is to be run with other Pythons exists."""
    told = subprocess.run([SCRIPTS / "versions", "--tests"], capture_output=True, text=True, timeout=60, check=True)
    chosen = [argument for argument in told.stdout.splitlines() if argument.startswith("tests/")]
    assert "tests/unit" in chosen
    for one in chosen:
        path, _, name = one.partition("::")
        assert (SCRIPTS.parent / path).exists()
        assert not name or f"def {name}(" in (SCRIPTS.parent / path).read_text()


def test_another_release_needs_root() -> None:
    """Whoever may not chroot is told so, with an exit code of its own, and nothing is installed."""
    ran = subprocess.run(
        ["bash", "-s"],
        input=(SCRIPTS / "chroot-python").read_text(),
        cwd="/",
        user=NOBODY if os.geteuid() == 0 else None,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 3
    assert ran.stderr == ("chroot-python: cannot run here: it needs root, to install a release and to chroot into it\n")
