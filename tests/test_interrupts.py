"""Ctrl-C and SIGTERM: a training ends without a traceback and goes on later; its workers are not hit."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sim2real.interrupts import shielded, terminable

SLEEP = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"]


def test_sigterm_is_as_ctrl_c_inside_and_as_before_outside():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_are_out_of_reach_from_their_first_moment(number):
    with shielded():
        worker = subprocess.Popen(SLEEP, stdout=subprocess.PIPE)
    worker.send_signal(number)  # most likely before it is up
    assert worker.stdout.readline() == b"up\n"
    worker.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.3)
    worker.kill()
    worker.wait()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}, "its parent is not"


def test_a_shielded_process_can_ask_to_be_terminated():
    code = (
        "from sim2real.interrupts import terminable\nimport time\nwith terminable():\n"
        "    try:\n        print('up', flush=True)\n"
        "        time.sleep(60)\n    except KeyboardInterrupt:\n        print('told')"
    )
    with shielded():
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    assert process.communicate(timeout=20)[0] == b"told\n" and process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_told_to_end_keeps_its_checkpoint(tmp_path, number):
    """To all processes of the command, as a terminal and a service manager do."""
    small = ["sim.robots=8", "sim.workers=2", "ppo.iterations=50", "ppo.mini_batches=2"]
    command = [sys.executable, "-u", "-m", "sim2real", "train", "randomized", "--run", str(tmp_path / "run")]
    for setting in small:
        command += ["--set", setting]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    said = []
    for line in running.stdout:
        said.append(line)
        if line.startswith("PPO 5/"):
            break
    os.killpg(running.pid, number)
    said.append(running.communicate(timeout=120)[0])
    text = "".join(said)
    assert running.returncode == 130 and "Traceback" not in text, text
    assert "Stopped early; the checkpoint is in" in text
    assert (tmp_path / "run" / "checkpoint.pt").is_file() and not (tmp_path / "run" / ".lock").exists()
