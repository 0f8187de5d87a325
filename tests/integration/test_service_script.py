"""What scripts/lib/service.sh believes of the processes that it started."""

import subprocess
from pathlib import Path

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
