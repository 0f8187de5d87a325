"""What scripts/lib/service.sh believes of the processes that it started."""

import socket
import subprocess
import threading
from pathlib import Path

import pytest

SERVICE_SCRIPT = Path(__file__).parents[2] / "scripts" / "lib" / "service.sh"

# The variables that a script sets before it includes the common part.
INCLUDE = f"""
service=test product=Test url_variable=LIMETASK_TEST_NOTHING default_port=1 package=none image=none
container_port=1 port_count=1
. {SERVICE_SCRIPT}
"""

# A server's start in small: every `exec` shows an empty command line for a moment, which a look may fall into.
CHAIN = 'n=0; exec sh -c \'exec env A=1 sh -c "exec env B=1 sh -c \\"exec env C=1 sleep 60\\" sleep" sleep\' sleep'


def run_in_script(commands: str) -> str:
    done = subprocess.run(["bash", "-c", INCLUDE + commands], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_is_seen_alive_while_it_is_replaced_by_the_next_program() -> None:
    looks = run_in_script(f"""
        for start in $(seq 1 40); do
          ( {CHAIN} ) & started=$!
          for look in 1 2 3 4 5 6 7 8; do is_process $started sleep && echo alive || echo dead; done
          kill $started
        done
    """)
    assert looks.split() == ["alive"] * 320


def test_a_process_that_ended_is_none_even_before_anybody_waited_for_it() -> None:
    looks = run_in_script("""
        true & ended=$!
        until grep -q '^State:.Z' /proc/$ended/status 2>/dev/null || [ ! -e /proc/$ended ]; do sleep 0.01; done
        is_process $ended true && echo alive || echo dead
    """)
    assert looks.split() == ["dead"]


@pytest.mark.parametrize(("held_seconds", "comes_back"), [(0.5, True), (60.0, False)])
def test_a_service_comes_back_on_its_ports_when_those_are_free_again(
    tmp_path: Path, held_seconds: float, comes_back: bool
) -> None:
    """Of a process that was killed some threads may hold the ports a little longer; another program keeps them."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        letting_go = threading.Timer(held_seconds, holder.close)
        letting_go.start()
        chosen = run_in_script(f"state={tmp_path}; remember port {port}; choose_ports; recall port")
        letting_go.cancel()
    assert (int(chosen) == port) is comes_back
