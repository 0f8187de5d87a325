"""Imports go one way: this reads every import in the sources and fails on a wrong one."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    "limetask": ROOT / "limetask",
    "limetask_worker": ROOT / "worker/limetask_worker",
    "lime_task": ROOT / "lime_task",
}

# A module or package of limetask may import what stands above it, and its own line too if that makes no cycle.
LAYERS = [
    [
        "errors",
        "foreign",
        "other_names",
        "forks",
        "ids",
        "status",
        "topology",
        "context",
        "value",
        "origin",
        "plain",
        "plain_headers",
        "amqp_1_0",
        "clock",
        "logs",
        "log_thread",
        "once",
        "threads",
        "answers",
    ],
    [
        "loop_thread",
        "message",
        "settings",
        "application",
        "arguments",
        "refused_arguments",
        "functions",
        "default_names",
        "registry",
        "signing",
        "retry",
        "hooks",
    ],
    ["codec", "results", "patterns", "redeliveries"],
    ["record_fields", "records", "handlers"],
    ["events"],
    ["amqp", "store_url", "store_tables", "database", "store", "reading", "ends"],
    ["listener", "dead_letters", "delays", "marker", "unused_queues", "handler_registry", "sending"],
    ["doctor", "bulk"],
    ["client"],
    ["aio"],
    ["task"],
    ["cli"],
    ["__init__", "__main__"],
]
# Who alone may import a library: what it costs and how it fails is known in one place.
ONLY_IMPORTERS = {
    "pika": {"limetask.amqp"},
    "aio_pika": {"limetask.aio"},
    "aiormq": {"limetask.aio"},
    "pamqp": {"limetask.aio"},
    "msgpack": {"limetask.arguments"},
    "sqlalchemy": {
        "limetask.database",
        "limetask.store",
        "limetask.store_tables",
        "limetask.store_url",
        "limetask_worker.store_writer",
        "limetask_worker.taken_back",
        "limetask_worker.upsert",
        "limetask_worker.schema",
        "limetask_worker.store_place",
        "limetask_worker.migrations",
    },
}
ROLES = {"limetask_worker.child", "limetask_worker.recorder", "limetask_worker.supervisor"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of ours, by name."""
    found = {}
    for package, folder in SOURCES.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            name = ".".join(parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text())
    return found


@cache
def imports_of(name: str) -> frozenset[str]:
    """All that a module imports when it or one of its functions runs; ours by module, others as they are written."""
    return frozenset(_ours(imported) for imported in _imported(modules()[name]))


def _imported(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from (name for other in child.orelse for name in _imported(ast.Module([other], [])))
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                yield "a relative import"
            case _:
                yield from _imported(child)


def _ours(imported: str) -> str:
    """The module of ours that a dotted name is in, or the name itself."""
    name = imported
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or imported


def package_of(name: str) -> str:
    return name.partition(".")[0]


def pairs(package: str) -> list[tuple[str, str]]:
    """Each module of a package with each of its imports."""
    return [
        (name, imported) for name in sorted(modules()) if package_of(name) == package for imported in imports_of(name)
    ]


def test_the_sources_are_found() -> None:
    """This test reads all packages, and sees imports in functions but not those for the type checker."""
    assert {package_of(name) for name in modules()} == set(SOURCES)
    assert "limetask.store" in imports_of("limetask.reading")
    source = """
        import a
        if TYPE_CHECKING:
            import b
        else:
            import c
        def f():
            from d import e
            if f:
                import g
    """
    assert list(_imported(ast.parse(textwrap.dedent(source)))) == ["a", "c", "d.e", "g"]


def test_imports_make_no_cycle() -> None:
    """No module imports itself by way of others."""
    graph = {name: imports_of(name) & set(modules()) for name in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" imports ".join(reversed(exc.args[1])))


def part_of(name: str) -> str:
    """What stands for a module of limetask in the list of layers."""
    return name.split(".")[1] if "." in name else "__init__"


def test_every_module_of_limetask_has_its_layer() -> None:
    """A new module is given its place in the list of layers."""
    listed = [part for layer in LAYERS for part in layer]
    assert sorted(listed) == sorted({part_of(name) for name in modules() if package_of(name) == "limetask"})


def test_no_module_imports_from_a_layer_above() -> None:
    """Every import within limetask goes up the list of layers, or stays in its line."""
    line_of = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    wrong = [
        f"{name} imports {imported}"
        for name, imported in pairs("limetask")
        if package_of(imported) == "limetask" and line_of[part_of(imported)] > line_of[part_of(name)]
    ]
    assert wrong == []


def test_limetask_does_not_know_the_worker() -> None:
    """The client library imports nothing of the daemon, and not its own other name."""
    assert [
        pair for pair in pairs("limetask") if package_of(pair[1]) in ("limetask_worker", "lime_task", "tests")
    ] == []


def test_lime_task_is_limetask_only() -> None:
    """The documented import name imports limetask and nothing else."""
    assert {imported for _, imported in pairs("lime_task")} == {"limetask"}


def test_the_worker_does_not_know_limetasks_other_name() -> None:
    """The daemon imports limetask by its own name, and module by module: never the package that re-exports."""
    assert [pair for pair in pairs("limetask_worker") if pair[1] in ("lime_task", "limetask")] == []


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_a_library_has_one_place(library: str) -> None:
    """pika, msgpack and SQLAlchemy are imported only where they are wrapped."""
    importers = {name for name in modules() if library in map(package_of, imports_of(name))}
    allowed = ONLY_IMPORTERS[library]
    assert {name for name in importers if not any(f"{name}.".startswith(f"{one}.") for one in allowed)} == set()
    assert importers


def test_roles_do_not_know_each_other() -> None:
    """No role of the daemon imports another, by whatever way: they only talk through their control lines."""
    for role in ROLES:
        reached: set[str] = set()
        waiting = [role]
        while waiting:
            new = imports_of(waiting.pop()) & set(modules()) - reached
            reached |= new
            waiting += new
        assert reached & ROLES - {role} == set(), role


def test_only_the_settings_read_the_environment() -> None:
    """In limetask nothing but settings.py uses `os.environ` or `os.getenv`."""
    readers = {
        name
        for name, tree in modules().items()
        if package_of(name) == "limetask"
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os")
    }
    assert readers == {"limetask.settings"}


def test_no_module_imports_relatively() -> None:
    """Every import names its module in full."""
    assert [name for name in modules() if "a relative import" in imports_of(name)] == []
