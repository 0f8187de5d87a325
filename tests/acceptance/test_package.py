"""limetask as it is installed: wheels in clean environments, not the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}.", onerror=lambda _: None):
        needs_extra = module.name.startswith(("limetask.cli", "limetask.aio")) and "limetask_worker" not in sys.argv
        if ".migrations." not in module.name and not needs_extra:
            importlib.import_module(module.name)
    print(name, package.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    completed = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from the checkout without touching it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), cwd=source)
    [built] = folder.glob("*.whl")
    return built


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("extras", "packages", "absent"),
    [
        ("", ("limetask", "lime_task"), ("click", "rich", "alembic", "aio_pika", "psycopg")),
        ("[worker,aio,postgresql]", ("limetask", "lime_task", "limetask_worker"), ()),
    ],
)
def test_the_wheel_works_in_a_clean_environment(
    wheel: Path, tmp_path: Path, extras: str, packages: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    """Everything in the wheel can be imported with just its own dependencies, and the client brings no others."""
    run(sys.executable, "-m", "venv", "clean", cwd=tmp_path)
    python = tmp_path / "clean" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}{extras}", cwd=tmp_path)
    imported = run(python, "-c", IMPORT_EVERYTHING, *packages, cwd=tmp_path)
    assert len(imported.splitlines()) == len(packages)
    assert str(tmp_path) in imported
    installed = run(python, "-m", "pip", "list", "--format=freeze", cwd=tmp_path).lower().replace("-", "_")
    assert [name for name in absent if f"{name}==" in installed] == []
    commands = tmp_path / "clean" / "bin"
    if not extras:
        told = 'Error: the limetask command needs click: pip install "limetask[cli]"\n'
        assert refusal(commands / "limetask", "dead", "list") == refusal(python, "-m", "limetask", "dead") == told
        told = 'Error: limetask-worker needs click, rich, alembic: pip install "limetask[worker]"\n'
        assert refusal(commands / "limetask-worker", "shop") == refusal(python, "-m", "limetask_worker", "shop") == told
        assert refusal(python, "-m", "limetask_worker.cli", "shop") == told
    else:
        assert "dead letters" in run(commands / "limetask", "--help", cwd=tmp_path)
        assert "--processes" in run(commands / "limetask-worker", "--help", cwd=tmp_path)


def refusal(*command: str | Path) -> str:
    """What a command that exits with 1 has said."""
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    return told.stderr


def test_the_wheel_holds_what_it_must_and_no_more(wheel: Path) -> None:
    """Three packages, their type markers, the migrations and the licence; no tests and no examples."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert tops == {"limetask", "lime_task", "limetask_worker"}
    for wanted in ("limetask/py.typed", "lime_task/py.typed", "limetask_worker/py.typed"):
        assert wanted in names
    assert any(name.startswith("limetask_worker/migrations/versions/") for name in names)
    assert any(name.endswith("LICENSE") for name in names)
