"""Collecting over real ROS 2: a camera at full rate, what publishers get wrong, kills, and an arm that is moved."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here; 'sim2real doctor' says how to get it")

from camera_rig import environment, joints_at, number_in

from calibration.collect.partial import partial_folder
from sim2real.images.dataset import read_dataset

pytestmark = pytest.mark.ros
HERE = Path(__file__).parents[1]


class Stage:
    """Starts processes on a ROS domain of their own and ends them."""

    def __init__(self, folder):
        self.folder, self.running = folder, []
        self.domain = os.environ["ROS_DOMAIN_ID"]

    def start(self, *command):
        log = (self.folder / f"{len(self.running)}.log").open("w+")
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment(self.domain) | {"COLUMNS": "200"},
            cwd=HERE.parent, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        process.log = log
        self.running.append(process)
        return process

    def camera(self, *options):
        return self.start(HERE / "camera_rig.py", *options)

    def collect(self, *options):
        return self.start("-m", "sim2real", "collect", "live", *options)

    def finish(self, process, seconds=60):
        """Exit code and output."""
        process.wait(seconds)
        process.log.seek(0)
        return process.returncode, " ".join(process.log.read().split())

    def end(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.log.close()


@pytest.fixture
def stage(tmp_path):
    made = Stage(tmp_path)
    yield made
    made.end()


def lines(folder):
    file = folder / "frames.jsonl"
    return len(file.read_bytes().splitlines()) if file.is_file() else 0


def until(done, seconds=40):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def check_against_the_rig(dataset, rate):
    """Every image is that of its stamp, and every joint position that of the same moment."""
    stamps, joints = dataset.column("stamp_s"), dataset.column("joint_pos")
    numbers = np.array([number_in(image) for image in dataset.images])
    np.testing.assert_allclose(stamps - stamps[0], (numbers - numbers[0]) / rate, atol=1e-5)
    expected = np.array([joints_at(stamp) for stamp in stamps])
    assert np.abs(joints - expected).max() < 5e-4  # rad; half a millisecond at this speed would be as much
    return numbers


def test_full_rate_loses_nothing_and_matches_every_stamp(stage, tmp_path):
    """The short version of benchmarks/collect_ros2.py."""
    out, figures = tmp_path / "d", tmp_path / "f.json"
    collect = stage.collect(out, "--all", "--seconds", 14, "--wait", 30, "--json", figures)
    camera = stage.camera("--seconds", 6, "--wait", 40)
    assert stage.finish(camera)[0] == 0
    collect.send_signal(signal.SIGINT)
    code, output = stage.finish(collect)
    assert code == 0, output
    saved = json.loads(figures.read_text())
    assert (saved["images_seen"], saved["images_missing"], saved["kept"], saved["drops"]) == (180, 0, 180, {})
    numbers = check_against_the_rig(read_dataset(out), 30.0)
    assert list(numbers) == list(range(180))
    assert (out / "README.md").is_file() and (out / "camera.yaml").is_file()


def test_a_killed_recording_goes_on_and_is_finished_by_ctrl_c(stage, tmp_path):
    out = tmp_path / "d"
    partial = partial_folder(out)
    stage.camera("--seconds", 60, "--best-effort")
    first = stage.collect(out, "--count", 12)
    until(lambda: lines(partial) > 15)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = len(read_dataset(partial))
    assert read_dataset(partial).images.shape[1:] == (480, 640, 3) and not out.exists()
    code, output = stage.finish(stage.collect(out, "--count", 12))
    assert code == 2 and "unfinished recording; go on with" in output
    second = stage.collect(out, "--count", 12, "--resume")
    until(lambda: lines(partial) > kept + 5)
    second.send_signal(signal.SIGINT)
    code, output = stage.finish(second)
    assert code == 0 and "best effort" in output, output
    dataset = read_dataset(out)
    assert len(dataset) == 12 and not partial.exists()
    check_against_the_rig(dataset, 30.0)
    assert set(dataset.column("session")) == {0, 1}
    assert dataset.about["images_seen"] == 12 + sum(dataset.about["drops"].values())


def test_missing_topics_are_named(stage, tmp_path):
    out = tmp_path / "d"
    code, output = stage.finish(stage.collect(out, "--image", "/nobody", "--wait", 0.5))
    assert code == 2 and "--image /nobody should be" in output and f"ROS_DOMAIN_ID {stage.domain}" in output
    stage.camera("--seconds", 40, "--no-info", "--rate", 10)
    # The topic of CameraInfo is there, and silent.
    code, output = stage.finish(stage.collect(out, "--seconds", 20, "--wait", 20))
    assert code == 2 and "no camera info yet" in output and "--no-info" in output, output
    code, output = stage.finish(stage.collect(out, "--seconds", 2.5, "--wait", 20, "--no-info"))
    assert code == 0 and "Card:" in output, output
    assert not (out / "camera.yaml").exists() and "Not calibrated" in (out / "README.md").read_text()


@pytest.mark.slow
def test_the_arm_is_moved_through_views_only_when_that_is_confirmed(stage, tmp_path):
    pytest.importorskip("mujoco")
    out = tmp_path / "d"
    move = [out, "--driver", "so101_twin", "--views", 4, "--wait", 30, "--no-info", "--count", 30]
    stage.camera("--seconds", 120, "--no-joints", "--no-info", "--rate", 15, "--wait", 60)
    code, output = stage.finish(stage.collect(*move))  # nobody answers the question
    assert code != 0 and "your hand at the switch?" in output and not list(tmp_path.glob("d*")), output
    code, output = stage.finish(stage.collect(*move, "--yes"), 100)
    assert code == 0, output
    dataset = read_dataset(out)
    joints = dataset.column("joint_pos")
    assert np.ptp(joints[:, :5], axis=0).min() > 0.2 and np.ptp(joints[:, 5]) < 0.05  # the gripper stays
    assert dataset.about["joint_names"][0] == "shoulder_pan" and "T_base_ee" in dataset.frames[0]
    assert dataset.column("T_base_ee")[:, 2, 3].min() > 0.03  # above the table
    assert dataset.column("state_gap_s").max() < 0.05
    motion = np.genfromtxt(out / "motion.csv", delimiter=",", names=True)
    assert len(motion) > 500
