"""A small bundle with random networks, real in every other respect."""

import contextlib
import json
import os
import shutil
import time
import zlib
from pathlib import Path

# drone-models insists on this before anything imports SciPy.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Workers side by side share the cores instead of each taking all of them.
os.environ.update(
    {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))}
    if "PYTEST_XDIST_WORKER_COUNT" in os.environ
    else {}
)
# A ROS domain for each worker, and another one for each run; 0 to 101 are safe on Linux.
os.environ["ROS_DOMAIN_ID"] = str(
    1
    + zlib.crc32(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())).encode()) % 90
    + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 10
)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

import numpy as np
import pytest
import torch

from sim2real.config import load_config
from sim2real.learn.artifact import Candidate
from sim2real.learn.estimator import EstimateFilter, Estimator
from sim2real.learn.experiment import load_experiment
from sim2real.methods import load_method
from sim2real.methods.up_osi import IdentifyingPolicy
from sim2real.robots import load_robot
from sim2real.runtime.bundle import write_bundle
from sim2real.runtime.bundle_files import sha256
from sim2real.runtime.golden import record_golden
from sim2real.runtime.policy import PolicyRunner
from sim2real.runtime.spec import ReportTerm, group_size


class TinyPolicy(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(size, 16), torch.nn.ELU(), torch.nn.Linear(16, 4))

    def forward(self, observation, parameters):
        return self.layers(torch.cat((observation, parameters), dim=-1))


def random_frames(steps, count, seed=0):
    """Random walks of every measured signal."""
    rng = np.random.default_rng(seed)
    sizes = {"position_error": 3, "linear_velocity": 3, "up": 3, "angular_velocity": 3, "heading_error": 1}
    state = {name: rng.normal(size=(count, size)) for name, size in sizes.items()}
    for _ in range(steps):
        state = {name: value + 0.1 * rng.normal(size=value.shape) for name, value in state.items()}
        yield dict(state)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    """Messages are compared: a long path must not be broken in two."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What keeps to the wall clock goes to one worker, where tests run side by side after all."""
    for item in items:
        if any(item.get_closest_marker(name) for name in ("ros", "realtime")):
            item.add_marker(pytest.mark.xdist_group("realtime"))


def _dds_threads():
    threads = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            name = (task / "comm").read_text().strip()
            if name.startswith("dds.") and name != "dds.shm.wdog":
                threads[task.name] = name
    return threads


@pytest.fixture(autouse=True)
def no_ros_left_behind(request):
    """A node that a test leaves behind is destroyed by the garbage collector, at any time, and may hang the process."""
    if request.node.get_closest_marker("ros") is None:
        yield
        return
    before = _dds_threads()
    yield
    deadline = time.monotonic() + 2.0
    while (left := [name for task, name in _dds_threads().items() if task not in before]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not left, f"a ROS 2 node was not destroyed: threads {left}"


@pytest.fixture(scope="session")
def tiny_parts():
    """Specification, torch module (with its policy, estimator and filter) and its ONNX bytes."""
    torch.manual_seed(0)
    config = load_config("up_osi")
    experiment = load_method(config.method).prepare(load_experiment(config))
    sizes = {name: group_size(terms) for name, terms in experiment.groups.items()}
    policy = TinyPolicy(sizes["observation"] + len(experiment.told)).eval()
    estimator = Estimator(sizes["history"], len(experiment.told), (16,)).eval()
    estimates = EstimateFilter(experiment.told, 0.02, 0.4)
    network = IdentifyingPolicy(policy, estimator, estimates, experiment.told).eval()
    report = tuple(ReportTerm(name=term.name, unit=term.unit) for term in experiment.told)
    candidate = Candidate(experiment.spec(estimates.memory_size, report), network)
    return candidate.spec, network, candidate.onnx()


@pytest.fixture(scope="session")
def tiny_bundle(tiny_parts, tmp_path_factory):
    """Path of a valid bundle; do not change it."""
    spec, _, policy_onnx = tiny_parts
    golden = record_golden(PolicyRunner.from_onnx(spec, policy_onnx), random_frames(30, 1))
    return write_bundle(
        tmp_path_factory.mktemp("bundle") / "tiny",
        spec=spec,
        robot=load_robot("crazyflie").spec,
        provenance={"commit": "test", "config": {}, "versions": {}},
        policy_onnx=policy_onnx,
        golden=golden,
    )


@pytest.fixture
def bundle_copy(tiny_bundle, tmp_path):
    """A bundle to tamper with."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def rehash(path):
    """Make the manifest agree with the tampered files, as a careful attacker would."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = {name: sha256((path / name).read_bytes()) for name in manifest["files"]}
    (path / "manifest.json").write_text(json.dumps(manifest))
