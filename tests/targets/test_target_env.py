"""Environments on targets: a budget that refuses, no truth without cheating, and the evaluation's own episodes."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("drone_models", reason="the drone target needs sim2real[drivers]")

from ros_rig import make_pd_bundle

from sim2real.errors import SimulationError
from sim2real.evaluate.episodes import run
from sim2real.learn.experiment import bundle_experiment
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.spec import ActionTerm, ObservationTerm, PolicySpec, SignalSpec
from sim2real.targets.base import begin, target_for
from sim2real.targets.env import Budget, TargetEnv


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return PolicyBundle.load(make_pd_bundle(tmp_path_factory.mktemp("pd") / "bundle"))


@pytest.fixture(scope="module")
def case(bundle):
    return bundle_experiment(bundle)


def make_env(bundle, case, cells=(("cf2x_L250", "fresh"),), **settings):
    return TargetEnv(case.task, target_for(case.robot, case.task), bundle.spec, cells, **settings)


def act(bundle):
    """The bundle's network from an observation to an action."""
    runner = bundle.runner(1)
    return lambda observation: runner._network({"observation": observation})["action"]


def test_a_budget_counts_and_refuses():
    budget = Budget(3)
    budget.spend(2)
    with pytest.raises(SimulationError, match="budget of 3 episodes on the target is spent: 2 were begun, 2 more"):
        budget.spend(2)
    assert (budget.spent, budget.left) == (2, 1)
    Budget(None).spend(10**6)


def test_every_robot_of_every_new_start_is_counted(bundle, case):
    budget = Budget(9)
    env = make_env(bundle, case, [("cf2x_L250", "fresh"), ("cf2x_P250", "payload")], per_cell=2, budget=budget)
    assert env.count == 4 and budget.spent == 4
    env.steps[2:] = env.episode_steps - 1  # the second cell is at the end of its episode
    before = env.goal.copy()
    _, _, truncated = env.step(np.zeros((4, 4), np.float32))
    assert truncated.tolist() == [False, False, True, True] and budget.spent == 6
    assert env.steps.tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(env.goal[:2], before[:2])
    assert (env.goal[2:] != before[2:]).all(), "new starts have new goals"
    with pytest.raises(SimulationError, match="budget of 9"):
        env.reset()
    with pytest.raises(SimulationError, match="budget of 1"):
        make_env(bundle, case, per_cell=2, budget=Budget(1))


def test_an_episode_in_it_is_an_episode_of_the_evaluation(bundle, case):
    env = make_env(bundle, case, per_cell=2, seed=7)
    start_seed = int(np.random.default_rng(7).integers(2**31))
    start, goal = begin(case.task, env.target, 2, start_seed)
    np.testing.assert_array_equal(env.cheat().state()["pos"], start["pos"])
    np.testing.assert_array_equal(env.goal, goal)
    policy, distance = act(bundle), []
    for _ in range(env.episode_steps - 1):
        env.step(policy(env.observation()))
        distance.append(env.distance)

    class SameStart:
        """The same target, with the environment's noise."""

        def __init__(self, target):
            self.target, self.name, self.commands = target, target.name, target.commands

        def start(self, task, rng, n):
            return self.target.start(task, rng, n)

        def make(self, variant, condition, n, seed):
            return self.target.make(variant, condition, n, 7)

    result = run(bundle.runner, case, SameStart(env.target), "cf2x_L250", "fresh", 2, start_seed, record=True)
    np.testing.assert_allclose(np.array(distance), result.distance[:-1], atol=1e-9)


def test_without_cheating_it_judges_by_what_is_measured(bundle, case):
    honest, oracle = make_env(bundle, case, seed=3), make_env(bundle, case, seed=3)
    behind = oracle.cheat()
    assert oracle.cheats and not honest.cheats
    for env in (honest, oracle):
        env.step(np.zeros((1, 4), np.float32))
    true = np.linalg.norm(behind.state()["pos"] - oracle.goal[:, :3], axis=1)
    np.testing.assert_allclose(oracle.distance, true)
    off = abs(honest.distance[0] - true[0])
    assert 1e-7 < off < 0.02, "the estimate is late, biased and noisy"
    assert not hasattr(honest, "privileged_observation")


def test_parameters_and_history_are_what_a_robot_would_have(bundle, case):
    env = make_env(bundle, case, per_cell=3)
    assert env.parameters().shape == (3, 0) and env.observation().shape == (3, bundle.spec.inputs()["observation"])
    with pytest.raises(KeyError):
        env.observation("history")
    env.close()


class Scripted:
    """Five points that are where a script says; the third crashes early and stays near."""

    name, variants, commands = "scripted", ("point",), ("x",)

    def conditions(self):
        return ("fresh",)

    def start(self, task, rng, n):
        return {"x": np.zeros((n, 1))}

    def make(self, variant, condition, n, seed):
        self.failed, self.step = np.zeros(n, dtype=bool), 0
        return self

    def reset(self, start):
        self.failed, self.step = np.zeros(len(start["x"]), dtype=bool), 0

    def command(self, command):
        pass

    def advance(self, seconds):
        self.step += 1
        self.failed = np.array([False, False, self.step >= 2, False, False])

    def truth(self):
        left = 0.5 if self.step == 7 else 0.0  # of 10 steps the last 5 must be held
        late = 0.5 if self.step < 6 else 0.0
        fails = 5.0 if self.step == 3 else 0.0
        return {"x": np.array([[0.0], [left], [0.0], [late], [fails]])}

    measured = truth

    def close(self):
        pass


def test_success_in_it_is_success_in_the_evaluation():
    """Held to the end and never failed: not left once, not crashed, not failed by the task's judgement."""
    error = ObservationTerm(name="error", components=("x",), unit="m", frame="world")
    spec = PolicySpec(
        robot="point", task="go", control_rate_hz=10, signals="mine", observation={"observation": (error,)},
        goal=SignalSpec(name="goal", components=("x",), unit="m", frame="world"),
        action=(ActionTerm(name="x", unit="m", low=-1.0, high=1.0),),
    )  # fmt: skip
    task = SimpleNamespace(
        episode_s=1.0,
        hold_s=0.5,
        tolerance_m=0.1,
        goal=spec.goal,
        goals=lambda rng, n, state: np.zeros((n, 1)),
        signals=SimpleNamespace(measure=lambda state, goal: {"error": state["x"] - goal}),
        distance=lambda state, goal: np.abs(state["x"] - goal)[:, 0],
        failed=lambda state, goal: (state["x"] > 2.0)[:, 0],
        reward=lambda state, goal, action, previous, failed: -1.0 * failed,
    )
    env = TargetEnv(task, Scripted(), spec, [("point", "fresh")], per_cell=5)
    for _ in range(9):
        env.step(np.zeros((5, 1), np.float32))
        assert not env.success.any(), "the episode is not over"
    env.step(np.zeros((5, 1), np.float32))
    assert env.success.tolist() == [True, False, False, True, False]
    assert env.ended.success.tolist() == env.success.tolist()

    still = SimpleNamespace(spec=spec, reset=lambda: None, step=lambda signals: np.zeros((5, 1)))
    result = run(lambda n: still, SimpleNamespace(task=task), Scripted(), "point", "fresh", 5, 0)
    assert (result.success, result.crashes, result.n) == (0.4, 1, 5)
