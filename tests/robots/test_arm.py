"""Kinematics, weight, servo model and the simulated arm."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pybullet
import pybullet_data
import pytest

from sim2real.config import load_config
from sim2real.errors import ConfigError, SimulationError
from sim2real.identify.arm.replay import replay
from sim2real.learn.experiment import load_experiment
from sim2real.recordings.logs import JointLog
from sim2real.robots import load_robot, robot_folder
from sim2real.robots.arm import Arm
from sim2real.robots.servo import Servo
from sim2real.robots.weights import WeighedChain
from sim2real.runtime.arm_signals import ArmSignals
from sim2real.sim.audit import Auditor, audit
from sim2real.sim.simulation import Simulation
from sim2real.sim.world import World

ARM = Arm(robot_folder("so101"))


def arm_of_pybullet(folder, files, urdf, ee):
    """An arm that comes with pybullet_data, as a folder with three lines of YAML."""
    shutil.copytree(Path(pybullet_data.getDataPath()) / files, folder)
    (folder / "robot.yaml").write_text(f"urdf: {urdf}\nee: {ee}\ncontrol_rate_hz: 20\n")
    return folder


def servo_quantities(**changes):
    values = {
        "gain": 20.0, "dead_band": 0.0, "stall_torque": 2.0, "no_load_speed": 3.0, "armature": 0.02, "coulomb": 0.0,
        "stiction": 0.0, "load_friction": 0.0, "backlash": 0.0, "gravity_scale": 1.0, "offset": 0.0,
        "acceleration": 1e3,
    } | changes  # fmt: skip
    return {name: np.full((1, 1), value) for name, value in values.items()}


def servo_of(dt=0.01, **changes):
    return Servo(servo_quantities(**changes), np.zeros((1, 1)), np.zeros((1, 1)), dt)


def run(servo, reference, seconds, gravity=0.0, dt=0.01):
    track = []
    for _ in range(round(seconds / dt)):
        servo.step(np.full((1, 1), reference), np.full((1, 1), gravity))
        track.append(float(servo.position[0, 0]))
    return np.array(track)


def test_weight_and_frames_are_bullets():
    client = pybullet.connect(pybullet.DIRECT)
    try:
        pybullet.setGravity(0, 0, -9.81, physicsClientId=client)
        flags = pybullet.URDF_USE_INERTIA_FROM_FILE
        body = pybullet.loadURDF(str(ARM.urdf), useFixedBase=True, flags=flags, physicsClientId=client)
        rng = np.random.default_rng(0)
        poses = rng.uniform(ARM.chain.low, ARM.chain.high, (5, 6))
        torque, frames = ARM.chain.gravity_torque(poses), ARM.chain.frames(poses)
        links = {
            pybullet.getJointInfo(body, i, client)[12].decode(): i for i in range(pybullet.getNumJoints(body, client))
        }
        for row, pose in enumerate(poses):
            still = [0.0] * 6
            wanted = pybullet.calculateInverseDynamics(body, pose.tolist(), still, still, client)
            np.testing.assert_allclose(torque[row], wanted, atol=1e-9)
            for joint, value in enumerate(pose):
                pybullet.resetJointState(body, joint, value, 0.0, client)
            place = pybullet.getLinkState(body, links["ee"], computeForwardKinematics=1, physicsClientId=client)[4]
            np.testing.assert_allclose(frames["ee"][0][row], place, atol=1e-6)
    finally:
        pybullet.disconnect(client)


def test_jacobian_is_the_derivative():
    pose = np.array([[0.3, -0.4, 0.5, 0.2, -0.1, 0.1]])
    jacobian = ARM.chain.jacobian("ee", ARM.chain.frames(pose))[0]
    for joint in range(6):
        nudge = np.zeros((1, 6))
        nudge[0, joint] = 1e-6
        ahead, behind = (ARM.chain.frames(pose + s * nudge)["ee"][0][0] for s in (1, -1))
        np.testing.assert_allclose(jacobian[:, joint], (ahead - behind) / 2e-6, atol=1e-7)


def test_damped_least_squares_reaches_the_point():
    pose, goal = np.array([[0.3, -0.4, 0.5, 0.2, -0.1, 0.1]]), np.array([[0.25, 0.1, 0.2]])
    for _ in range(60):
        frames = ARM.chain.frames(pose)
        pose = pose + ARM.chain.joint_step("ee", pose, frames, goal - frames["ee"][0], 0.03)
    np.testing.assert_allclose(ARM.chain.frames(pose)["ee"][0], goal, atol=1e-4)


LIMIT = '<limit lower="-1.69" upper="1.69" effort="3.0" velocity="6.0"/>'  # of elbow_flex
UPPER_ARM = '<inertia ixx="4.08e-5" ixy="-1.98e-5" ixz="-4.0e-8" iyy="1.473e-4" iyz="9.0e-9" izz="1.425e-4"/>'
ELBOW = '<parent link="upper_arm"/><child link="lower_arm"/>'


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (LIMIT, "", "'elbow_flex' has no limits"),
        (LIMIT, LIMIT.replace("3.0", "-1"), "'elbow_flex' has effort=-1 .*; write the joint's greatest torque, N·m"),
        (LIMIT, LIMIT.replace("6.0", "0"), "'elbow_flex' has velocity=0 .*; write the joint's greatest speed, rad/s"),
        (LIMIT, LIMIT.replace("6.0", "nan"), "'elbow_flex': velocity is 'nan', not a finite number"),
        (
            LIMIT,
            LIMIT.replace("1.69", "96.8"),
            "'elbow_flex' moves from -96.8 to 96.8 .*; URDF limits are radians",
        ),
        ('<mass value="0.103"/>', '<mass value="0"/>', "'upper_arm' has no positive mass"),
        ("</robot>", "", "not a readable URDF"),
        (ELBOW, '<child link="lower_arm"/>', "'elbow_flex': its <parent> has no 'link'"),
        (ELBOW, '<parent link="upper_arm"/><child/>', "'elbow_flex': its <child> has no 'link'"),
        (ELBOW, ELBOW.replace("upper_arm", "arm"), "'elbow_flex' has the parent 'arm', which is no link"),
        (ELBOW, ELBOW.replace("lower_arm", "wrist"), "'wrist' is the child of two joints"),
        (ELBOW, ELBOW.replace("upper_arm", "gripper"), "no joint leads from the root 'base' to lower_arm, wrist"),
        ('<link name="wrist">', '<link name="gripper">', "two links 'gripper'"),
        ('<link name="wrist">', "<link>", "a <link> has no 'name'"),
        ('<joint name="wrist_flex"', '<joint name="elbow_flex"', "two joints 'elbow_flex'"),
        (UPPER_ARM, UPPER_ARM.replace("1.473e-4", "-1.473e-4"), "'upper_arm' has the inertia .*; all must be positive"),
        (UPPER_ARM, UPPER_ARM.replace("-4.0e-8", "4e-4"), "'upper_arm' has the inertia .*ixz=0.0004.*; all must"),
        (UPPER_ARM, UPPER_ARM.replace("1.473e-4", "nan"), "'upper_arm': iyy is 'nan', not a finite number"),
        (UPPER_ARM, '<inertia ixx="0" iyy="0" izz="0"/>', "'upper_arm' has the inertia .*; all must be positive"),
    ],
)
def test_a_urdf_that_describes_no_arm_is_refused(tmp_path, before, after, words):
    text = ARM.urdf.read_text()
    assert text.count(before) == 1
    (tmp_path / "a.urdf").write_text(text.replace(before, after))
    with pytest.raises(ConfigError, match=words):
        WeighedChain(tmp_path / "a.urdf")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("control_rate_hz: -5", "robot.yaml: control_rate_hz: Input should be greater than 0$"),
        ("encoder_step: 0", "robot.yaml: encoder_step: Input should be greater than 0$"),
        ("rest: {gripper: half}", "rest.gripper is 'half', not an angle"),
        ("rest: [0.0]", "'rest' must hold names and values"),
        (
            "servo: {gain: {unit: 1/rad, nominal: 9, low: 1, high: 2, reason: x}}",
            "servo.gain: nominal 9 is outside 1 .. 2",
        ),
    ],
)
def test_a_fault_in_a_description_is_one_line(tmp_path, line, words):
    (tmp_path / "so101.urdf").write_text(ARM.urdf.read_text())
    rate = "" if line.startswith("control") else "control_rate_hz: 20\n"
    (tmp_path / "robot.yaml").write_text(f"urdf: so101.urdf\nee: ee\n{rate}{line}\n")
    with pytest.raises(ConfigError, match=words) as caught:
        Arm(tmp_path)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_limits_that_make_no_servo_are_the_urdfs_fault(tmp_path):
    (tmp_path / "so101.urdf").write_text(ARM.urdf.read_text().replace(LIMIT, LIMIT.replace("3.0", "0.001")))
    (tmp_path / "robot.yaml").write_text("urdf: so101.urdf\nee: ee\ncontrol_rate_hz: 20\n")
    with pytest.raises(ConfigError, match=r"so101.urdf: its limits make servo.armature: elbow_flex \S+ is outside"):
        Arm(tmp_path)


def test_servo_reaches_and_respects_its_speed():
    track = run(servo_of(), 1.0, 3.0)
    assert track[-1] == pytest.approx(1.0, abs=1e-3)
    assert np.diff(track).max() / 0.01 <= 3.0
    fast = np.diff(run(servo_of(gain=1e3, no_load_speed=1.2), 1.0, 0.6)) / 0.01
    assert fast.max() == pytest.approx(1.2, rel=0.01)


def test_servo_follows_a_profile_of_limited_acceleration():
    fast = {"gain": 10.0, "no_load_speed": 40.0, "stall_torque": 100.0, "armature": 1e-3}  # its lag is 2.5 ms
    # Half the way speeding up, half slowing down, and neither overshoot nor creep at the end.
    track = run(servo_of(0.001, acceleration=40.0, **fast), 0.4, 0.3, dt=0.001)
    assert np.interp(0.2, track, 1e-3 * np.arange(1, 301)) == pytest.approx(np.sqrt(0.4 / 40.0), abs=5e-3)
    assert track.max() < 0.4 + 1e-3 and track[215:] == pytest.approx(0.4, abs=1e-3)
    # A sine of 28 rad/s^2 is followed; of one of 100 is left what full acceleration to and fro gives, a T^2 / 32.
    time = 0.001 * np.arange(4000)
    for amplitude, wanted in ((0.08, 0.08), (0.28, 40.0 / 9.0 / 32.0)):
        servo, reached = servo_of(0.001, acceleration=40.0, **fast), []
        for reference in amplitude * np.sin(6.0 * np.pi * time):
            servo.step(np.full((1, 1), reference), np.zeros((1, 1)))
            reached.append(float(servo.position[0, 0]))
        assert np.abs(reached[2000:]).max() == pytest.approx(wanted, rel=0.03)


def test_without_a_profile_commands_are_followed_as_they_come():
    """Beside a joint that has one, too; and one that has just not reached the limit lags."""
    alone = servo_of()
    both = {name: np.full((1, 2), 1.0) * values for name, values in servo_quantities().items()}
    both["acceleration"] = np.array([[1e3, 40.0]])
    beside = Servo(both, np.zeros((1, 2)), np.zeros((1, 2)), 0.01)
    for step in range(100):
        reference = 0.3 * np.sin(0.05 * step)
        alone.step(np.full((1, 1), reference), np.zeros((1, 1)))
        beside.step(np.full((1, 2), reference), np.zeros((1, 2)))
        assert beside.position[0, 0] == alone.position[0, 0]
    assert abs(beside.position[0, 1] - alone.position[0, 0]) > 1e-3


def test_servo_sags_sticks_and_has_play():
    # At rest: gain * stall * error = weight.
    assert run(servo_of(), 0.0, 3.0, gravity=0.4)[-1] == pytest.approx(-0.4 / (20.0 * 2.0), abs=1e-4)
    # Dry friction larger than what the error gives: it does not creep, ever.
    stuck = run(servo_of(coulomb=0.5, stiction=0.5), 0.012, 5.0, gravity=0.1)
    assert np.all(stuck == 0.0)
    assert run(servo_of(dead_band=0.05), 0.04, 2.0)[-1] == 0.0
    assert run(servo_of(offset=0.03), 0.0, 3.0)[-1] == pytest.approx(0.03, abs=1e-3)
    loose = servo_of(backlash=0.1)
    # The encoder sits behind the play: on the way up it trails the motor by half of it, on the way down likewise.
    for reference, gap in ((0.5, 0.05), (0.0, -0.05)):
        run(loose, reference, 0.15)
        assert loose.motor[0, 0] - loose.position[0, 0] == pytest.approx(gap, abs=1e-9)
        run(loose, reference, 3.0)


def test_step_size_hardly_matters():
    coarse, fine = (
        run(servo_of(0.01, coulomb=0.1), 0.5, 2.0, 0.2),
        run(servo_of(0.001, coulomb=0.1), 0.5, 2.0, 0.2, 0.001),
    )
    assert np.abs(coarse - fine[9::10]).max() < 0.02


def test_the_arm_in_bullet_does_what_its_servos_do():
    """Free motion in Bullet is the servo model; and standing still is standing still."""
    sim = Simulation(ARM, 3, {}, 2, 0)
    state = ARM.nominal_state(3)
    sim.reset(np.arange(3), state, state["joint_pos"])
    for _ in range(100):
        sim.step(state["joint_pos"] + 0.3)
    moved = sim.state["joint_pos"]
    assert np.abs(moved[0] - 0.3).max() < 0.08
    np.testing.assert_array_equal(moved[0], moved[2])
    for _ in range(100):
        sim.step(state["joint_pos"] + 0.3)
    assert np.abs(sim.state["joint_pos"] - moved).max() < 0.02
    bodies, _ = sim.world.read_joints()
    assert np.abs(bodies - sim.state["joint_pos"]).max() < 0.02  # half the play, and what the solver leaves
    with pytest.raises(SimulationError, match="not finite"):
        sim.step(np.full((3, 6), np.nan))
    sim.close()


def test_payload_and_mass_pull_the_arm_down():
    heights = []
    for changes in ({}, {"payload": 0.2}, {"upper_arm.mass_scale": 8.0}):
        sim = Simulation(ARM, 1, {}, 2, 0)
        params = sim.params.nominal[None].copy()
        for name, value in changes.items():
            params[:, sim.params.column(name)] = value
        state = ARM.nominal_state(1)
        sim.reset(np.arange(1), state, state["joint_pos"], params)
        for _ in range(80):
            sim.step(state["joint_pos"])
        heights.append(float(sim.state["ee_pos"][0, 2]))
        sim.close()
    assert heights[1] < heights[0] - 1e-3
    assert heights[2] < heights[0] - 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("robot", "idle"),
    [
        ("so101", {"shoulder_pan.gravity_scale", "shoulder_pan.load_friction"}),
        ("fr3", {"fr3_joint1.gravity_scale"}),
        ("iiwa", {"lbr_iiwa_joint_1.gravity_scale", "lbr_iiwa_joint_7.gravity_scale"}),
    ],
)
def test_every_arm_term_moves_the_arm(tmp_path, robot, idle):
    if robot == "iiwa":
        robot = str(arm_of_pybullet(tmp_path / "iiwa", "kuka_iiwa", "model.urdf", "lbr_iiwa_link_7"))
    arm = load_robot(robot)
    signals = ArmSignals(arm.spec, arm.chain)
    terms, auditor = arm.randomization, Auditor(arm, signals, "goal_error", robots=2, seconds=1.5)
    assert {f"{arm.joints[-1]}.gain", "payload", f"{arm.chain.link_names[3]}.mass_scale", "delay_jitter"} <= set(terms)
    rows = audit(terms, auditor)
    assert [row.term for row in rows if not row.moves] == []
    assert {row.term for row in rows} == set(terms) - idle
    # What nothing weighs on really does nothing, and keeps its place among the random draws.
    alone = audit({name: terms[name] for name in idle}, auditor)
    assert len(alone) == len(idle) and max(row.effect for row in alone) < 1e-12


def test_reach_starts_and_goals_are_in_its_region_and_the_controller_gets_there():
    env = load_experiment(load_config("so101_reach")).make_env(0, 64, restart=False)
    env.reset()
    for point in (env.sim.state["ee_pos"], env.goal):
        distance = np.sqrt((point[:, :2] ** 2).sum(axis=1))
        flat, height = distance / ARM.reach_m, point[:, 2] / ARM.reach_m
        assert ((flat > 0.35) & (flat < 0.8) & (height > 0.12) & (height < 0.7)).mean() > 0.95
    for _ in range(env.episode_steps):
        env.step(env.task.expert(env.signals).astype(np.float32))
    assert env.success.mean() > 0.6
    env.sim.close()
    with pytest.raises(ConfigError, match="for arms"):
        load_experiment(load_config("so101_reach", ["robot=crazyflie", "randomize=[mass]"]))
    with pytest.raises(ConfigError, match="no robot 'so102'"):
        load_robot("so102")


def test_training_simulates_what_was_identified():
    """The same commands through the replay that identification trusts, and through the training simulator."""
    time = 0.02 * np.arange(300)
    rng = np.random.default_rng(0)
    wave = np.sin(time[:, None] * rng.uniform(1.0, 6.0, 6) + rng.uniform(0.0, 6.0, 6))
    command = 0.5 * wave + np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.7])
    log = JointLog("made", ARM.joints, time, command, np.tile(command[0], (300, 1)))
    replayed = replay(ARM, [log], ARM.nominal())[0].simulated
    sim = Simulation(ARM, 1, {}, 2, 0)
    params = sim.params.nominal[None].copy()
    state = {"joint_pos": command[:1], "joint_vel": np.zeros((1, 6)), "ee_pos": np.zeros((1, 3))}
    sim.reset(np.arange(1), state, command[:1], params)
    trained = [command[0]]
    for row in command[:-1]:
        sim.step(row[None])
        trained.append(sim.state["joint_pos"][0].copy())
    sim.close()
    difference = np.sqrt(((np.array(trained) - replayed) ** 2).mean(axis=0))
    assert difference.max() < 1e-3, dict(zip(ARM.joints, difference.round(5), strict=True))


@pytest.mark.parametrize(("robot", "decimation", "fine"), [("fr3", 2, 12), ("fr3", 3, 12), ("so101", 2, 10)])
def test_coarse_physics_moves_as_fine_physics_does(robot, decimation, fine):
    """The steps that training uses, against 240 Hz and more, with Bullet's 50 iterations in both."""
    arm = load_robot(robot)
    rng = np.random.default_rng(0)
    rate, joints = arm.spec.control_rate_hz, len(arm.joints)
    speed, phase = rng.uniform(0.5, 4.0, (4, joints)), rng.uniform(0.0, 6.0, (4, joints))
    tracks = []
    for steps in (decimation, fine):
        sim, start = Simulation(arm, 4, {}, steps, 0), arm.nominal_state(4)
        sim.reset(np.arange(4), start, start["joint_pos"])
        track = []
        for step in range(round(4 * rate)):
            sim.step(start["joint_pos"] + 0.3 * (np.sin(speed * step / rate + phase) - np.sin(phase)))
            track.append(sim.state["joint_pos"].copy())
        sim.close()
        tracks.append(np.array(track))
    assert np.ptp(tracks[0], axis=0).min() > 0.05
    assert np.sqrt(((tracks[0] - tracks[1]) ** 2).mean()) < 0.003


@pytest.mark.slow
@pytest.mark.parametrize(("robot", "decimation", "fine"), [("fr3", 3, 12), ("so101", 2, 10)])
def test_coarse_physics_pushes_as_fine_physics_does(robot, decimation, fine):
    """The same controller moves the same object to the same place, give or take what contact leaves open."""
    ends = []
    for steps in (decimation, fine):
        config = load_config(
            "so101_push", [f"robot={robot}", "method=nominal", "randomize=[]", f"sim.decimation={steps}"]
        )
        env = load_experiment(config).make_env(5, 24, restart=False)
        env.reset()
        begun = env.sim.state["object_pos"][:, :2] - env.goal[:, :2]
        for _ in range(env.episode_steps):
            env.step(np.asarray(env.task.expert(env.signals), dtype=np.float32))
        ends.append(np.sqrt(((env.sim.state["object_pos"] - env.goal)[:, :2] ** 2).sum(axis=1)))
        assert np.sqrt((begun**2).sum(axis=1)).min() > 0.05
        env.sim.close()
    assert abs((ends[0] < 0.03).mean() - (ends[1] < 0.03).mean()) < 0.15
    assert np.median(ends[0]) == pytest.approx(np.median(ends[1]), abs=0.004)


def test_third_arm_is_a_urdf_and_three_lines(tmp_path):
    folder = arm_of_pybullet(tmp_path / "iiwa", "kuka_iiwa", "model.urdf", "lbr_iiwa_link_7")
    config = load_config("so101_reach", [f"robot={folder}", "sim.decimation=2"])
    env = load_experiment(config).make_env(0, 32, restart=False)
    env.reset()
    for _ in range(env.episode_steps):
        env.step(np.asarray(env.task.expert(env.signals), dtype=np.float32))
    assert env.success.mean() > 0.7
    assert env.sim.robot.spec.name == "iiwa" and env.sim.robot.spec.commands[0].hold is None
    env.sim.close()
    for text, words in (("ee: x\n", "names no 'urdf'"), ("urdf: model.urdf\nee: lbr_iiwa_link_7\n", "control_rate_hz")):
        (folder / "robot.yaml").write_text(text)
        with pytest.raises(ConfigError, match=words):
            Arm(folder)


def test_an_inertia_that_breaks_only_the_triangle_inequality_is_mended(tmp_path, caplog):
    folder = arm_of_pybullet(tmp_path / "xarm", "xarm", "xarm6_robot.urdf", "link6")
    with caplog.at_level(logging.WARNING):
        arm = Arm(folder)
        Arm(folder)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "'link2'" in told[0] and "0.003058, 0.02364, 0.0269 kg·m²" in told[0]
    # 0.0269 is 0.0002 above the sum of the others: a third of that on each makes the nearest tensor.
    assert "0.003124, 0.02371, 0.02683 are taken" in told[0] and "'link3'" in told[1]
    world = World(2, 0.01)
    world.load_robots(arm.urdf, fixed_base=True)
    for link, (name, mass) in enumerate(list(arm.chain.masses.items())[1:]):
        for body in world.bodies:
            found = pybullet.getDynamicsInfo(body, link, world.client)
            assert found[0] == mass and 0.0 < 2.0 * max(found[2]) <= sum(found[2]), name
    np.testing.assert_allclose(found_inertia(world, 2), arm.chain.inertias["link2"])
    world.close()
    sim, start = Simulation(arm, 2, {}, 2, 0), arm.nominal_state(2)
    sim.reset(np.arange(2), start, start["joint_pos"])
    for _ in range(20):
        sim.step(start["joint_pos"] - 0.2)
    assert np.abs(sim.state["joint_pos"] - start["joint_pos"] + 0.2).max() < 0.02
    sim.close()


def found_inertia(world, link):
    return pybullet.getDynamicsInfo(world.bodies[0], link, world.client)[2]


def test_fr3_is_frankas(tmp_path):
    """Frames and weight against the model of another party, where it is installed."""
    franky_sim = pytest.importorskip("franky_sim", reason="the FR3's foreign oracle; pip install franky-sim")
    mujoco = pytest.importorskip("mujoco")
    assets = Path(franky_sim.__file__).parent / "assets"
    text = (assets / "fr3.xml").read_text().replace('meshdir="assets"', f'meshdir="{assets / "meshes"}"')
    model = mujoco.MjModel.from_xml_string(text)
    data, arm = mujoco.MjData(model), load_robot("fr3")
    for pose in np.random.default_rng(0).uniform(arm.chain.low, arm.chain.high, (10, 7)):
        data.qpos[:7] = pose
        mujoco.mj_forward(model, data)
        frames = arm.chain.frames(pose[None])
        np.testing.assert_allclose(frames["fr3_hand"][0][0], data.body("hand").xpos, atol=1e-6)
        np.testing.assert_allclose(arm.chain.gravity_torque(pose[None])[0], data.qfrc_bias[:7], atol=0.05)
