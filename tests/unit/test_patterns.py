"""Patterns of events: which events they fit, and which of them are refused."""

from __future__ import annotations

import random
import time
from functools import cache
from typing import Any

import pytest

from limetask import Application, EventPattern, EventPatternError, Status, on_failure, on_success, task
from limetask.message import completion_key
from limetask.patterns import check_binding


@cache
def routed(pattern: tuple[str, ...], key: tuple[str, ...]) -> bool:
    """AMQP's rule, as it is told: the slow way, to compare with."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(routed(pattern[1:], key[taken:]) for taken in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and routed(pattern[1:], key[1:])


def failed(pattern: EventPattern, task_name: str) -> bool:
    """Whether a pattern fits the failure of a task."""
    return pattern.fits(completion_key(task_name, Status.FAILURE), task_name)


@pytest.mark.parametrize(
    ("binding", "fitting", "not_fitting"),
    [
        ("a.b", ["a.b"], ["a", "b", "a.b.c", "x.a.b", "A.b", "a.b.", ".a.b", "axb", ""]),
        ("*", ["a", "core"], ["", "a.b"]),
        ("#", ["", "a", "a.b", "a..b", "."], []),
        ("a.*", ["a.b", "a.*", "a."], ["a", "a.b.c", "b.a"]),
        ("a.#", ["a", "a.b", "a.b.c"], ["ab", "b", "", "x.a"]),
        ("#.a", ["a", "b.a", "c.b.a"], ["ba", "a.b", ""]),
        ("a.#.z", ["a.z", "a.b.z", "a.b.c.z", "a.z.z"], ["a", "z", "a.b", "az"]),
        ("a.*.#", ["a.b", "a.b.c"], ["a", "b.c"]),
        ("#.a.#", ["a", "b.a", "a.b", "b.a.b"], ["b", "ab", ""]),
        ("*.#.*", ["a.b", "a.b.c"], ["a", ""]),
        ("#.#", ["", "a", "a.b"], []),
        ("a+.b(c)", ["a+.b(c)"], ["aa.bc", "a.bc"]),
        ("a.[b]", ["a.[b]"], ["a.b"]),
        ("a.b\\d", ["a.b\\d"], ["a.b1"]),
        ("^a.b$", ["^a.b$"], ["a.b"]),
        ("größe.*", ["größe.日本"], ["grosse.b", "gro\u0308\u00dfe.b"]),
    ],
)
def test_a_binding_fits_as_the_broker_routes(binding: str, fitting: list[str], not_fitting: list[str]) -> None:
    """`*` is one word, `#` any number of them, and everything else only itself, be it a regular expression or not."""
    pattern = EventPattern(binding)
    assert [key for key in fitting if not pattern.fits(key, None)] == []
    assert [key for key in not_fitting if pattern.fits(key, None)] == []


def test_any_binding_fits_as_the_rule_says() -> None:
    """For thousands of made-up patterns and keys the answer is that of the rule, followed word by word."""
    chance = random.Random(4)
    for _ in range(20_000):
        pattern = tuple(chance.choices(["a", "b", "*", "#"], k=chance.randint(1, 6)))
        key = tuple(chance.choices(["a", "b", "c"], k=chance.randint(0, 7)))
        fits = EventPattern(".".join(pattern)).fits(".".join(key), None)
        assert fits is routed(pattern, key), (pattern, key)


def test_no_pattern_takes_long() -> None:
    """Even the most ambiguous pattern is compared at once: an event must not hold up its handler."""
    ambiguous = EventPattern("#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.b")
    begun = time.perf_counter()
    assert not ambiguous.fits(".".join("a" * 128), None)
    assert not on_failure("*a*a*a*a*a*a*a*a*b").fits(f"core.task.x.{'a' * 200}.failure.v1", "x." + "a" * 200)
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize("make", [on_failure, on_success])
@pytest.mark.parametrize("task_name", ["a.b", "pkg.tasks.add", "pkg.Größe.größer", "x." + "y" * 232, "a.b[1]?"])
def test_without_a_name_every_task_is_meant(make: Any, task_name: str) -> None:
    """`on_failure()` fits every task's failure and no success; `on_success()` the other way round."""
    meant, other = (Status.FAILURE, Status.SUCCESS) if make is on_failure else (Status.SUCCESS, Status.FAILURE)
    for pattern in (make(), make("*")):
        assert pattern.fits(completion_key(task_name, meant), task_name)
        assert not pattern.fits(completion_key(task_name, other), task_name)


def test_a_name_means_that_task_alone() -> None:
    """A name without a wildcard is a binding of its own, and the broker delivers nothing else."""
    assert on_failure("pkg.tasks.add") == EventPattern("core.task.pkg.tasks.add.failure.v1")
    assert on_success("pkg.tasks.add") == EventPattern("core.task.pkg.tasks.add.success.v1")
    assert not failed(on_failure("pkg.tasks.add"), "pkg.tasks.add.more")
    assert not failed(on_failure("pkg.tasks.add"), "more.pkg.tasks.add")


@pytest.mark.parametrize("name", ["pkg.tasks.add", "pkg.tasks.[add]", "pkg.tasks.really?"])
def test_a_task_itself_means_that_task_alone(name: str) -> None:
    """A declared task can be given instead of its name, and then nothing in its name is a wildcard."""

    @task(name=name)
    def add(app: Application) -> None:
        pass

    assert failed(on_failure(add), name)
    assert on_failure(add) == EventPattern(f"core.task.{name}.failure.v1")
    assert not failed(on_failure(add), "pkg.tasks.a")


@pytest.mark.parametrize(
    ("pattern", "binding", "fitting", "not_fitting"),
    [
        ("my_package.tasks.*", "my_package.tasks.#", ["my_package.tasks.a", "my_package.tasks.a.b"], ["my_package.a"]),
        ("my_package.*", "my_package.#", ["my_package.a", "my_package.tasks.a"], ["my_packages.a", "x.my_package.a"]),
        ("my_pack*", "#", ["my_package.a", "my_packages.a.b"], ["x.my_pack", "my.a"]),
        ("*.add", "#", ["pkg.add", "pkg.tasks.add"], ["pkg.adds", "add.pkg"]),
        ("pkg.*.add", "pkg.#", ["pkg.tasks.add", "pkg.a.b.add"], ["pkg.add", "pkg.tasks.adds"]),
        ("pkg.tasks.add_?", "pkg.tasks.#", ["pkg.tasks.add_1"], ["pkg.tasks.add_", "pkg.tasks.add_12"]),
        ("pkg.[ab]*.x", "pkg.#", ["pkg.a.x", "pkg.bc.x"], ["pkg.c.x"]),
        ("pkg.[!ab]*.x", "pkg.#", ["pkg.c.x"], ["pkg.a.x", "pkg.bc.x"]),
        ("pkg?tasks.*", "#", ["pkg.tasks.a", "pkg-tasks.a"], ["pkg.tasks"]),
        ("*(x+)*", "#", ["pkg.(x+)", "(x+).y"], ["pkg.xx", "pkg.x"]),
        ("größe.*", "größe.#", ["größe.日本"], ["grosse.a"]),
    ],
)
def test_a_shell_pattern_is_about_the_whole_name(
    pattern: str, binding: str, fitting: list[str], not_fitting: list[str]
) -> None:
    """`*` in a shell pattern stands for dots too; the broker is asked for no more than the known first words."""
    made = on_failure(pattern)
    assert made.binding == f"core.task.{binding}.failure.v1"
    assert [name for name in fitting if not failed(made, name)] == []
    assert [name for name in not_fitting if failed(made, name)] == []


def test_a_shell_pattern_and_its_binding_agree() -> None:
    """For made-up patterns, what the shell pattern fits the binding lets through: nothing that is wanted is missed."""
    chance = random.Random(7)
    for _ in range(20_000):
        name = ".".join("".join(chance.choices("ab", k=chance.randint(1, 2))) for _ in range(chance.randint(2, 4)))
        pattern = "".join(chance.choice([letter, letter, letter, "?", "*", f"[{letter}]"]) for letter in name)
        try:
            made = on_failure(pattern)
        except EventPatternError:
            continue
        assert failed(made, name), (pattern, name)


def test_a_shell_pattern_fits_no_event_without_a_task() -> None:
    """What is about names of tasks does not fit another event, whatever its key."""
    assert not on_failure("pkg.*").fits("core.task.pkg.add.failure.v1", None)
    assert EventPattern("shop.#").fits("shop.order.paid.v1", None)
    assert not EventPattern("shop.#", "*").fits("shop.order.paid.v1", None)


@pytest.mark.parametrize(
    ("binding", "complaint"),
    [
        ("", "is no event pattern: it must be text such as 'core.task.#.failure.v1', or on_failure(...)"),
        (None, "is no event pattern"),
        (3, "is no event pattern"),
        (b"a.b", "is no event pattern"),
        (["a.b"], "is no event pattern"),
        (".", "has an empty word: is there a dot too many?"),
        ("a..b", "has an empty word"),
        (".a", "has an empty word"),
        ("a.", "has an empty word"),
        ("a.b*", "'b*' would never fit. For parts of a task's name use on_failure('my_package.tasks.*')"),
        ("a.**", "'**' would never fit"),
        ("a.##", "'##' would never fit"),
        ("a#.b", "'a#' would never fit"),
        ("a. b", "no event has a space or the like there"),
        ("a.b\n", "no event has a space or the like there"),
        ("a.\x00", "no event has a space or the like there"),
        ("a.\ud800", "no event has a space or the like there"),
        ("core.task.*.failure.v1", "Write '#' for the name, as in 'core.task.#.failure.v1'"),
        ("core.task.add.success.v1", "a task's name has more than one word, and '*' stands for one"),
        ("core.task", "would never fit"),
    ],
    ids=ascii,
)
def test_a_binding_that_could_not_work_is_refused(binding: Any, complaint: str) -> None:
    """What the broker would refuse, or no event can fit, is refused at once, with the reason and the pattern itself."""
    for refusing in (check_binding, EventPattern):
        with pytest.raises(EventPatternError) as caught:
            refusing(binding)
        assert complaint in str(caught.value)
        assert repr(binding) in str(caught.value)


@pytest.mark.parametrize(
    ("binding", "meant"),
    [
        ("core.task.#.failed.v1", "core.task.#.failure.v1"),
        ("core.task.*.failed.v1", "core.task.#.failure.v1"),
        ("core.task.#.Failure.v1", "core.task.#.failure.v1"),
        ("core.task.#.succeeded", "core.task.#.success.v1"),
        ("core.task.#.success", "core.task.#.success.v1"),
        ("core.task.#.success.v2", "core.task.#.success.v1"),
        ("core.task.#.started.v1", "core.task.#.failure.v1"),
        ("core.task.#.failure.v1.more", "core.task.#.failure.v1"),
        ("core.task.shop.#.error.v1", "core.task.shop.#.failure.v1"),
        ("core.task.shop.tasks.add", "core.task.shop.tasks.add.failure.v1"),
        ("core.task.shop.tasks.add.done.v1", "core.task.shop.tasks.add.success.v1"),
        ("core.task.shop.tasks.*.*.v2", "core.task.shop.tasks.*.*.failure.v1"),
        ("core.task.shop", "core.task.#.shop.failure.v1"),
    ],
)
def test_a_binding_that_no_end_fits_is_refused_with_what_is_meant(binding: str, meant: str) -> None:
    """Only ends of tasks begin with core.task: a misspelt ending would wait for ever, and the right one is told."""
    with pytest.raises(EventPatternError, match=r"would never fit: ends of tasks are the only events") as caught:
        EventPattern(binding)
    assert str(caught.value).endswith(f"Write {meant!r}")
    EventPattern(meant)


def test_a_binding_is_refused_only_if_no_end_fits() -> None:
    """For made-up patterns: whatever fits the end of some task is accepted."""
    chance = random.Random(11)
    names = ["a.b", "b.a", "a.b.a", "b.failure", "a.v1.b", "a.a.b.b"]
    ends = [completion_key(name, status) for name in names for status in (Status.FAILURE, Status.SUCCESS)]
    for _ in range(3000):
        words = chance.choices(["a", "b", "*", "#", "failure", "success", "v1"], k=chance.randint(0, 5))
        binding = ".".join(["core.task", *words])
        fits_some = any(routed(tuple(binding.split(".")), tuple(end.split("."))) for end in ends)
        try:
            check_binding(binding)
        except EventPatternError:
            assert not fits_some, binding


@pytest.mark.parametrize("character", ["x", "ä", "日"])
def test_a_binding_fits_into_the_protocol(character: str) -> None:
    """255 bytes are the most that a binding may have, however many letters they are."""
    most = 253 // len(character.encode())
    longest = "a." + "x" * (253 - most * len(character.encode())) + character * most
    assert len(longest.encode()) == 255
    check_binding(longest)
    with pytest.raises(EventPatternError, match=r"has 256 bytes and may have 255"):
        check_binding(f"{longest}x")


@pytest.mark.parametrize("binding", ["core.task.#", "core.task.*.*.failure.v1", "core.#.v1", "core.*.#", "#", "*.task"])
def test_a_binding_with_room_for_a_task_is_accepted(binding: str) -> None:
    """A pattern that some end of a task, or some other event, may fit is accepted."""
    assert EventPattern(binding).binding == binding


@pytest.mark.parametrize("names", [3, b"*", ["a.*"]])
def test_the_names_of_tasks_are_a_text(names: Any) -> None:
    """A shell pattern that is no text is refused where it is made and not where an event comes."""
    with pytest.raises(EventPatternError, match="is no shell pattern of task names"):
        EventPattern("core.task.#", names)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "is neither a task nor a shell pattern"),
        (None, "is neither a task nor a shell pattern"),
        (print, "is neither a task nor a shell pattern"),
        ("add", "must be words joined by dots"),
        ("pkg.tasks.", "must be words joined by dots"),
        ("pkg add.x", "must be words joined by dots"),
        ("pkg." + "x" * 231, "has 235 bytes and may have 234"),
        ("pkg.#", "must be words joined by dots"),
        ("pkg.#.a*", "the wildcards of a shell pattern are *, ? and [...]"),
        ("pkg. *", "the wildcards of a shell pattern are *, ? and [...]"),
        ("pkg.\ud800*", "the wildcards of a shell pattern are *, ? and [...]"),
        ("pkg.[b", "has a [ that is not closed"),
        ("pkg.*.[]", "has a [ that is not closed"),
        ("pkg.[!]*", "has a [ that is not closed"),
        ("pkg..*", "there is a dot too many"),
        (".*", "there is a dot too many"),
        ("pkg.*.", "there is a dot too many"),
        ("x" * 300 + ".*", "may have 255"),
        ("?", "a task's name is two words or more, joined by dots. Write 'my_package.tasks.*'"),
        ("??", "a task's name is two words or more"),
        ("add?", "a task's name is two words or more"),
        ("[ab]dd", "a task's name is two words or more"),
        ("[.]add", "a task's name is two words or more"),
        ("a[!.]b", "a task's name is two words or more"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("make", [on_failure, on_success])
def test_what_no_tasks_name_fits_is_refused(make: Any, name: Any, complaint: str) -> None:
    """`on_failure` and `on_success` refuse what is no name and no shell pattern that a name could fit."""
    with pytest.raises(EventPatternError) as caught:
        make(name)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("???", "a.b"),
        ("a[.]b", "a.b"),
        ("a[!b-z]b", "a.b"),
        ("*?", "a.b"),
        ("?*", "a.b"),
        ("add*", "add.x"),
        ("a.[]x]", "a.]"),
        ("a?ä", "a.ä"),
    ],
)
def test_an_odd_shell_pattern_that_a_name_fits_is_accepted(pattern: str, name: str) -> None:
    """A dot may come from any wildcard."""
    assert failed(on_failure(pattern), name)


def test_the_longest_names_fit() -> None:
    """The longest name that a task may have, and the longest known words of a shell pattern, make a pattern."""
    longest = "x." + "y" * 232
    assert failed(on_failure(longest), longest)
    assert failed(on_failure("y" * 232 + ".*"), "y" * 232 + ".x")


def test_a_pattern_is_a_value() -> None:
    """Equal patterns are equal, can be in a set, and cannot be changed."""
    assert len({on_failure("a.*"), on_failure("a.*"), on_success("a.*")}) == 2
    with pytest.raises(AttributeError):
        on_failure("a.*").binding = "b"  # type: ignore[misc]
