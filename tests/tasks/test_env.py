"""The environment: no leaks, success at the end, and a record of every episode that ended."""

import numpy as np
import pytest

from sim2real.config import load_config
from sim2real.learn.experiment import load_experiment
from sim2real.runtime.geometry import rpy_to_quat, yaw_of
from sim2real.tasks.success import within


def test_no_leak_the_policy_sees_neither_truth_nor_other_robots():
    """Blind observations must not change with physics before the physics had time to act."""
    one_goal = ["task.goal_range_m=0", "task.start_heading_rad=0"]
    env = load_experiment(load_config("randomized", one_goal)).make_env(0, 2, restart=False)
    params = np.tile(env.sim.params.nominal, (2, 1))
    params[1, env.sim.params.column("mass")] = 0.05
    start = env.task.start(np.random.default_rng(0), 1)
    start = {name: value[[0, 0]] for name, value in start.items()}
    env.reset(params, start)
    observation = env.observation()
    np.testing.assert_array_equal(observation[0], observation[1])
    for _ in range(10):
        env.step(np.zeros((2, 4), np.float32))
    assert np.abs(env.observation()[0] - env.observation()[1]).max() > 1e-3
    env.sim.close()


def test_success_needs_the_whole_last_second():
    env = load_experiment(load_config("nominal")).make_env(0, 1, restart=False)
    hover = np.zeros((1, 4), np.float32)
    low, high = env.spec.action[0].low, env.spec.action[0].high
    hover[0, 0] = 2 * (0.032 * 9.81 - low) / (high - low) - 1
    still = np.zeros((1, 3))

    def hover_from(offset, heading=0.0):
        for _ in range(50):  # rotors settle
            env.step(hover)
        yaw = yaw_of(env.sim.state["quat"])  # which the attitude controller holds
        level = rpy_to_quat(yaw[:, None] * [0.0, 0.0, 1.0])
        env.goal[:, 3] = yaw + heading
        env.sim.world.write_base(np.array([0]), env.goal[:, :3] + offset, level, still, still)
        env.steps[:] = 0
        for _ in range(env.episode_steps):
            result = env.step(hover)
        return result

    _, terminated, truncated = hover_from(0.0)
    assert truncated[0] and not terminated[0] and env.success[0], "hovering on the goal is success"
    hover_from(0.1)
    assert not env.success[0], "hovering 0.17 m away is not"
    hover_from(0.0, np.deg2rad(12.0))
    assert not env.success[0], "nor is a heading of 12 degrees off"
    hover_from(0.0, np.deg2rad(8.0))
    assert env.success[0]
    env.sim.close()


@pytest.mark.parametrize("name", ["randomized", "so101_reach", "so101_push"])
def test_every_episode_that_ended_is_recorded(name):
    """Summed by hand beside the environment: returns, lengths, success and the physics before the restart."""
    task = load_config(name).task["name"]
    config = load_config(name, [f"task={{name: {task}, episode_s: 0.6, hold_s: 0.1, tolerance_m: 0.2}}"])
    env = load_experiment(config).make_env(0, 6)
    returns, lengths, ended, crashes = np.zeros(6), np.zeros(6, dtype=int), 0, 0
    rng = np.random.default_rng(0)
    jitter = {term.parameter for term in env.sim.randomization.terms.values() if term.kind == "step"}
    steady = [i for i, column in enumerate(env.sim.params.names) if column not in jitter]
    for step in range(2 * env.episode_steps + 3):
        if step == 4 and task == "hover":  # one crashes
            state = env.sim.state
            high = np.array([[0.0, 0.0, 50.0]])
            env.sim.world.write_base(
                np.array([2]), high, state["quat"][2:3], state["lin_vel"][2:3], state["ang_vel"][2:3]
            )
        physics = env.sim.params.values.copy()
        action = rng.uniform(-0.2, 0.2, (6, len(env.spec.action))).astype(np.float32)
        reward, terminated, truncated = env.step(action)
        returns, lengths = returns + reward, lengths + 1
        over = np.nonzero(terminated | truncated)[0]
        np.testing.assert_array_equal(env.ended.env_ids, over)
        np.testing.assert_allclose(env.ended.returns, returns[over])
        np.testing.assert_array_equal(env.ended.lengths, lengths[over])
        np.testing.assert_array_equal(env.ended.success, env.success[over])
        np.testing.assert_array_equal(env.ended.params[:, steady], physics[over][:, steady])
        assert not env.success[terminated].any()
        np.testing.assert_array_equal(env.trial_ended, terminated | truncated)
        returns[over], lengths[over] = 0.0, 0
        np.testing.assert_array_equal(env.steps, lengths)
        ended, crashes = ended + len(over), crashes + int(terminated.sum())
    assert ended == 12 and (crashes > 0) == (task == "hover")
    env.sim.close()


@pytest.mark.parametrize(
    ("name", "entry"), [("nominal", "pos"), ("so101_reach", "ee_pos"), ("so101_push", "object_pos")]
)
def test_a_task_judges_by_distance(name, entry):
    """Starts and goals are apart, and a robot or object put on its goal is at distance 0."""
    task = load_experiment(load_config(name)).task
    rng = np.random.default_rng(0)
    start = task.start(rng, 32)
    goal = task.goals(rng, 32, start)
    assert goal.shape == (32, task.goal.size) and task.start_command(start).shape == (32, len(task.action()))
    distance = task.distance(start, goal)
    assert np.median(distance) > 2.0 * task.tolerance_m
    there = {**start, entry: goal[:, :3]}
    if "yaw" in task.goal.components:
        there["quat"] = rpy_to_quat(goal[:, 3:] * [0.0, 0.0, 1.0])
    np.testing.assert_allclose(task.distance(there, goal), 0.0, atol=1e-12)
    assert within(task, there, goal).all() and not within(task, start, goal).any()
    assert not task.failed(start, goal).any()
    still = {key: np.zeros_like(value) if key.endswith("vel") else value for key, value in there.items()}
    none = np.zeros((32, len(task.action())))
    best = task.reward(still, goal, none, none, np.zeros(32, dtype=bool))
    assert best == pytest.approx(1.0, abs=1e-9), "about 1 when holding still on the goal"
    assert (task.reward(start, goal, none, none, np.zeros(32, dtype=bool)) < best).all()
