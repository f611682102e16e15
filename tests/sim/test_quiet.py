"""Libraries that write to the terminal themselves are silenced, and nothing else is."""

import os
import subprocess
import sys
import threading
import time

from sim2real.robots import robot_folder
from sim2real.sim.quiet import quiet

LOAD = f"""
import sys
print("before", flush=False)
import sim2real.sim.render.drawing
from pathlib import Path
from sim2real.sim.world import World
World(1, 0.01).load_robots(Path({str(robot_folder("so101") / "so101.urdf")!r}), fixed_base=True)
print("after")
print("error", file=sys.stderr)
"""


def test_only_the_foreign_words_are_lost(capfd):
    with quiet():
        os.write(1, b"to standard output")
        os.write(2, b"to standard error")
    os.write(1, b"ours")
    assert tuple(capfd.readouterr()) == ("ours", "")


def test_pybullet_says_nothing_of_its_own():
    told = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert told.stdout == "before\nafter\n" and told.stderr == "error\n"


def test_closed_streams_stay_closed():
    for closed, number in ((">&-", 1), ("2>&-", 2)):
        look = f"import os, sim2real.sim.world; os.fstat({number})"
        told = subprocess.run(["sh", "-c", f'exec "{sys.executable}" -c "{look}" {closed}'], check=False)
        assert told.returncode == 1  # OSError: it is still closed
    command = f'exec "{sys.executable}" -c "import sim2real.sim.world" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0


def test_two_threads_do_not_silence_each_other_for_good(capfd):
    def work(wait, hold):
        time.sleep(wait)
        with quiet():
            time.sleep(hold)

    threads = [threading.Thread(target=work, args=times) for times in ((0.0, 0.2), (0.1, 0.2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(1, b"ours")
    assert capfd.readouterr().out == "ours"
