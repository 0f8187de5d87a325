"""The kernel's count of processes that it has killed for lack of memory, in the forms in which it tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from limetask_worker.memory_kills import MemoryKills

FORMS = {
    "cgroup v2": "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n",
    "cgroup v1": "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
    "machine": "nr_free_pages 1\noom_kill {}\nnuma_hit 5\n",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_rise_is_recent_and_a_count_is_not(tmp_path: Path, form: str) -> None:
    """What was killed before this process began to look says nothing."""
    told = tmp_path / "told"
    told.write_text(form.format(7))
    kills = MemoryKills([tmp_path / "missing", told])
    assert not kills.are_recent()
    told.write_text(form.format(8))
    assert kills.are_recent()
    assert kills.are_recent()


def test_the_first_file_that_counts_is_followed(tmp_path: Path) -> None:
    """The control group's own count is better evidence than the machine's."""
    group, machine, without = tmp_path / "group", tmp_path / "machine", tmp_path / "without"
    without.write_text("under_oom 0\n")
    group.write_text("oom_kill 0\n")
    machine.write_text("oom_kill 0\n")
    kills = MemoryKills([without, group, machine])
    machine.write_text("oom_kill 1\n")
    assert not kills.are_recent()
    group.write_text("oom_kill 1\n")
    assert kills.are_recent()


def test_where_nothing_is_told_nothing_is_known(tmp_path: Path) -> None:
    """Other systems than Linux have no such count, and a group may go."""
    assert not MemoryKills([]).are_recent()
    told = tmp_path / "told"
    told.write_text("oom_kill 7\n")
    kills = MemoryKills([told])
    told.unlink()
    assert not kills.are_recent()
    told.write_text("oom_kill 7\n")  # as when it could not be opened for a moment
    assert not kills.are_recent()
    told.write_text("oom_kill 8\n")
    assert kills.are_recent()


def test_this_machine_is_understood() -> None:
    """Whatever there is here, looking at it does no harm."""
    assert not MemoryKills().are_recent()
