"""Arms as people's URDFs describe them: frames, branches, mimicking, sliding and endless joints, all faults at once."""

import logging

import numpy as np
import pybullet
import pytest

from sim2real.config import validate_config
from sim2real.errors import ConfigError
from sim2real.identify.arm.replay import replay
from sim2real.learn.experiment import load_experiment
from sim2real.recordings.logs import JointLog
from sim2real.robots import load_robot
from sim2real.robots.weights import WeighedChain
from sim2real.sim.simulation import Simulation
from sim2real.sim.world import NO_GRAVITY, World
from sim2real.tasks.reach import Reach, ReachSettings

LIMIT = '<limit lower="-2.5" upper="2.5" effort="80" velocity="2.5"/>'


def link(name, mass=1.0, z=0.1):
    moments = " ".join(f'{key}="{0.002 * mass}"' for key in ("ixx", "iyy", "izz"))
    inertial = f'<inertial><origin xyz="0 0 {z}"/><mass value="{mass}"/><inertia {moments}/></inertial>' if mass else ""
    return f'<link name="{name}">{inertial}</link>'


def joint(name, parent, child, xyz="0 0 0.3", axis="0 1 0", kind="revolute", inner=LIMIT, rpy="0 0 0"):
    ends = f'<parent link="{parent}"/><child link="{child}"/><origin xyz="{xyz}" rpy="{rpy}"/><axis xyz="{axis}"/>'
    return f'<joint name="{name}" type="{kind}">{ends}{"" if kind == "fixed" else inner}</joint>'


def fixed(name, parent, child, xyz="0 0 0", rpy="0 0 0"):
    return joint(name, parent, child, xyz, kind="fixed", rpy=rpy)


# A frame without mass below and above, a second link that stands still on the table, and a tool frame.
FRAMED = [
    link("world", 0), link("base_link", 0), fixed("w", "world", "base_link"),
    link("base_link_inertia", 4), fixed("b", "base_link", "base_link_inertia"),
    link("l1", 3), joint("j1", "base_link_inertia", "l1", "0 0 0.15", "0 0 1"),
    link("l2", 4), joint("j2", "l1", "l2", "0 0 0.05"),
    link("l3", 2), joint("j3", "l2", "l3", "0 0 0.4"),
    link("tool0", 0), fixed("t", "l3", "tool0", "0 0 0.35"),
]  # fmt: skip
BRANCHED = [
    link("base", 5),
    link("a1"), joint("a_1", "base", "a1", "0 0.2 0.3", "0 0 1"), link("a2"), joint("a_2", "a1", "a2", "0.2 0 0"),
    link("b1"), joint("b_1", "base", "b1", "0 -0.2 0.3", "0 0 1"), link("b2"), joint("b_2", "b1", "b2", "0.2 0 0"),
]  # fmt: skip


def arm_folder(folder, parts, ee, extra=""):
    folder.mkdir(exist_ok=True)
    (folder / "arm.urdf").write_text(f'<robot name="arm">{"".join(parts)}</robot>')
    (folder / "robot.yaml").write_text(f"urdf: arm.urdf\nee: {ee}\ncontrol_rate_hz: 50\n{extra}")
    return folder


def bullet_frames(arm, pose):
    """Origins of all links in Bullet, which knows nothing of the chain, after the world has placed the joints."""
    world = World(1, 0.01, NO_GRAVITY)
    world.load_robots(arm.urdf, fixed_base=True)
    world.write_joints(np.arange(1), pose[None], np.zeros((1, len(pose))))
    body, client = world.bodies[0], world.client
    infos = [pybullet.getJointInfo(body, i, client) for i in range(pybullet.getNumJoints(body, client))]
    places = {i[12].decode(): pybullet.getLinkState(body, i[0], physicsClientId=client)[4] for i in infos}
    world.close()
    return {name: np.array(place) for name, place in places.items()}


def test_joints_are_found_by_name_where_an_arm_branches(tmp_path):
    arm = load_robot(str(arm_folder(tmp_path / "two", BRANCHED, "a2")))
    assert arm.joints == ("a_1", "b_1", "a_2", "b_2")  # breadth first; Bullet has them depth first
    pose = np.array([0.3, -0.5, 0.7, 0.9])
    frames = arm.chain.frames(pose[None])
    for name, place in bullet_frames(arm, pose).items():
        np.testing.assert_allclose(frames[name][0][0], place, atol=1e-6)
    time = np.arange(0.0, 3.0, 0.02)
    command = np.zeros((len(time), 4))
    command[time > 0.5, 1] = 1.0
    log = JointLog("only b_1", arm.joints, time, command, command.copy())
    end = replay(arm, [log], arm.nominal())[0].simulated[-1]
    np.testing.assert_allclose(end, [0.0, 1.0, 0.0, 0.0], atol=0.02)


def test_a_frame_needs_no_inertial_and_starts_differ_from_goals(tmp_path):
    arm = load_robot(str(arm_folder(tmp_path / "framed", FRAMED, "tool0")))
    assert arm.joints == ("j1", "j2", "j3") and arm.chain.masses["tool0"] == 0.0
    assert not any("tool0" in name or "base_link" in name for name in arm.parameters)
    task = Reach(arm, ReachSettings())
    state = task.start(np.random.default_rng(0), 64)
    goals = task.goals(np.random.default_rng(1), 64)
    assert np.median(np.linalg.norm(state["ee_pos"] - goals, axis=1)) > 0.1
    assert (np.abs(state["joint_pos"] - arm.rest).max(axis=1) > 0.05).all()
    assert set(arm.chain.lifted_links()) == {"l3", "tool0"} and "l1" in arm.chain.upright_links()


def test_the_expert_reaches_with_an_arm_of_ones_own(tmp_path):
    settings = {"name": "x", "robot": str(arm_folder(tmp_path / "framed", FRAMED, "tool0")), "task": "reach"}
    settings |= {"method": "randomized", "randomize": "all", "ppo": {"iterations": 1}}
    env = load_experiment(validate_config(settings, "x")).nominal().make_env(0, 32, restart=False)
    for _ in range(env.episode_steps):
        env.step(env.task.expert(env.signals).astype(np.float32))
    assert env.success.mean() >= 0.9
    env.sim.close()


def test_an_arm_that_hangs_reaches_below_and_one_that_stands_still_is_refused(tmp_path, caplog):
    hung = [FRAMED[0], FRAMED[1], fixed("w", "world", "base_link", "0 0 1.4", "3.14159265 0 0"), *FRAMED[3:]]
    task = Reach(load_robot(str(arm_folder(tmp_path / "hung", hung, "tool0"))), ReachSettings())
    tips = task.start(np.random.default_rng(0), 64)["ee_pos"]
    assert (tips[:, 2] > 0.0).all() and np.median(tips[:, 2]) < 1.2 and np.ptp(tips[:, 2]) > 0.1
    upside = [link("root", 4), fixed("f", "root", "base_link_inertia", rpy="3.14159265 0 0"), *FRAMED[3:4], *FRAMED[5:]]
    with caplog.at_level(logging.WARNING):
        task = Reach(load_robot(str(arm_folder(tmp_path / "upside", upside, "tool0"))), ReachSettings())
    assert "it seems to hang" in caplog.text
    tips = task.start(np.random.default_rng(0), 64)["ee_pos"]
    assert np.median(np.linalg.norm(tips - np.roll(tips, 1, axis=0), axis=1)) > 0.1
    with pytest.raises(ConfigError, match="no joint of 'still' moves 'base_link'"):
        Reach(load_robot(str(arm_folder(tmp_path / "still", FRAMED, "base_link"))), ReachSettings())
    with pytest.raises(ConfigError, match="'l2' of 'short' hardly moves"):
        Reach(load_robot(str(arm_folder(tmp_path / "short", FRAMED, "l2"))), ReachSettings())


def gripper(mimic='<mimic joint="rail" multiplier="-2" offset="0.1"/>'):
    slide = '<limit lower="0" upper="0.4" effort="50" velocity="0.5"/>'
    return [
        *FRAMED,
        link("carriage"), joint("rail", "tool0", "carriage", "0 0 0.05", "1 0 0", "prismatic", slide),
        link("finger", 0.1), joint("follower", "carriage", "finger", "0 0.1 0", "0 0 1", "revolute", LIMIT + mimic),
    ]  # fmt: skip


def test_sliding_and_mimicking_joints_are_bullets(tmp_path, caplog):
    folder = arm_folder(tmp_path / "rail", gripper(), "finger")
    with caplog.at_level(logging.WARNING):
        arm = load_robot(str(folder))
    assert arm.joints == ("j1", "j2", "j3", "rail") and "'follower' is no actuator of its own" in caplog.text
    assert [command.unit for command in arm.spec.commands] == ["rad", "rad", "rad", "m"]
    pose = np.array([0.4, -0.6, 0.8, 0.3])
    frames = arm.chain.frames(pose[None])
    for name, place in bullet_frames(arm, pose).items():
        np.testing.assert_allclose(frames[name][0][0], place, atol=1e-6, err_msg=name)
    turned = frames["carriage"][1][0].T @ frames["finger"][1][0]
    assert np.arctan2(turned[1, 0], turned[0, 0]) == pytest.approx(-2 * 0.3 + 0.1)
    # Weight and Jacobian are derivatives of energy and position.
    jacobian = arm.chain.jacobian("finger", frames)[0]
    weight = arm.chain.gravity_torque(pose[None])[0]
    for column in range(4):
        moved = pose + 1e-6 * np.eye(4)[column]
        nearby = arm.chain.frames(moved[None])
        np.testing.assert_allclose(
            (nearby["finger"][0] - frames["finger"][0])[0] / 1e-6, jacobian[:, column], atol=1e-5
        )
        energy = [
            sum(9.81 * m * (f[n][0][0] + f[n][1][0] @ arm.chain.links[n].com)[2] for n, m in arm.chain.masses.items())
            for f in (frames, nearby)
        ]
        assert (energy[1] - energy[0]) / 1e-6 == pytest.approx(weight[column], abs=1e-3)
    sim, start = Simulation(arm, 2, {}, 2, 0), arm.nominal_state(2)
    sim.reset(np.arange(2), start, start["joint_pos"])
    for _ in range(100):
        sim.step(np.tile(pose, (2, 1)))
    np.testing.assert_allclose(sim.state["joint_pos"], np.tile(pose, (2, 1)), atol=0.01)
    body, client = sim.world.bodies[1], sim.world.client
    names = [pybullet.getJointInfo(body, i, client)[1].decode() for i in range(pybullet.getNumJoints(body, client))]
    assert pybullet.getJointState(body, names.index("follower"), client)[0] == pytest.approx(-0.5, abs=0.02)
    sim.close()


def test_the_mujoco_target_couples_mimicking_joints(tmp_path):
    pytest.importorskip("mujoco")
    from sim2real.targets.mujoco_arm import FRESH, UrdfArm, build_model

    arm = load_robot(str(arm_folder(tmp_path / "rail", gripper(), "finger")))
    body = UrdfArm(build_model(arm, FRESH, False), arm, FRESH.puck)
    body.reset(arm.rest)
    pose = np.array([0.2, -0.3, 0.4, 0.3])
    body.advance(pose, 2.0)
    np.testing.assert_allclose(body.position, pose, atol=0.03)
    np.testing.assert_allclose(body.ee_pos, arm.chain.frames(body.position[None])["finger"][0][0], atol=0.01)


def test_an_endless_joint_is_commanded_within_a_turn(tmp_path, caplog):
    parts = [part.replace('name="j1" type="revolute"', 'name="j1" type="continuous"') for part in FRAMED]
    parts = [part.replace("2.5", "999999", 2) if '"j3"' in part else part for part in parts]
    with caplog.at_level(logging.WARNING):
        arm = load_robot(str(arm_folder(tmp_path / "endless", parts, "tool0")))
    assert "'j1', 'j3' have no stops; they are commanded within -3.142 .. 3.142 rad" in caplog.text
    np.testing.assert_allclose([arm.chain.low[[0, 2]], arm.chain.high[[0, 2]]], [[-np.pi] * 2, [np.pi] * 2])


def test_all_faults_of_a_file_are_told_at_once(tmp_path):
    still = LIMIT.replace('velocity="2.5"', 'velocity="0"')
    parts = [link("base", 0)]
    for n in range(1, 4):
        parts += [link(f"l{n}", 0), joint(f"j{n}", f"l{n - 1}" if n > 1 else "base", f"l{n}", inner=still)]
    with pytest.raises(ConfigError) as caught:
        load_robot(str(arm_folder(tmp_path / "dead", parts, "l3")))
    told = str(caught.value)
    assert all(f"joint 'j{n}' has velocity=0" in told for n in (1, 2, 3)) and "l1, l2, l3" in told
    roots = [*FRAMED, link("stand")]
    with pytest.raises(
        ConfigError, match=r"it has world, stand; join them: put stand on 'world' with <joint type=\"fi"
    ):
        load_robot(str(arm_folder(tmp_path / "roots", roots, "l3")))
    with pytest.raises(ConfigError, match="has no moving joint"):
        load_robot(str(arm_folder(tmp_path / "box", [link("box")], "box")))
    lost = [*gripper('<mimic joint="rale"/>')]
    with pytest.raises(ConfigError, match="joint 'follower' mimics 'rale', which is no moving joint"):
        load_robot(str(arm_folder(tmp_path / "lost", lost, "l3")))
    with pytest.raises(ConfigError, match="joint 'w' is floating"):
        floating = [part.replace('name="w" type="fixed"', 'name="w" type="floating"') for part in FRAMED]
        load_robot(str(arm_folder(tmp_path / "floating", floating, "l3")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '<robot xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:seg n="1"/></robot>',
            r"arm.urdf is xacro, not a URDF: expand it \(xacro arm.urdf > arm_expanded.urdf\)",
        ),
        ('<robot><xacro:seg n="1"/></robot>', "is xacro, not a URDF"),
        ("<mujoco/>", "is a MuJoCo model, not a URDF"),
        ("<sdf/>", "is an SDF model, not a URDF"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, text, words):
    (tmp_path / "arm.urdf").write_text(text)
    with pytest.raises(ConfigError, match=words):
        WeighedChain(tmp_path / "arm.urdf")


def test_what_a_file_leaves_out_is_estimated_and_told(tmp_path, caplog):
    parts = [part.replace('effort="80"', 'effort="0"') for part in FRAMED]
    parts = [link(name, 0) if f'<link name="{name}">' in part else part for part in parts for name in ("l2",)]
    with caplog.at_level(logging.WARNING):
        arm = load_robot(str(arm_folder(tmp_path / "bare", parts, "tool0")))
    assert "no <inertial> is given for l2;" in caplog.text and "no effort is given for 'j1'" in caplog.text
    assert arm.chain.masses["l2"] > 0.0 and (arm.chain.effort > 0.0).all()
    borne = np.abs(arm.chain.gravity_torque(np.random.default_rng(1).uniform(-2, 2, (50, 3)))).max(axis=0)
    assert (arm.chain.effort >= borne).all()
    sim = Simulation(arm, 2, arm.randomization, 2, 0)
    sim.close()


def test_a_missing_mesh_is_named_and_left_out(tmp_path, caplog):
    shape = '<geometry><mesh filename="package://my_arm/meshes/{}"/></geometry>'
    seen = "".join(f"<visual>{shape.format(name)}</visual>" for name in ("lost.stl", "base.obj"))
    parts = [part.replace("</link>", seen + "</link>") if 'name="l2"' in part else part for part in FRAMED]
    folder = arm_folder(tmp_path / "my_arm", parts, "tool0")
    (folder / "meshes").mkdir()
    (folder / "meshes" / "base.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    world = World(1, 0.01, NO_GRAVITY)
    with caplog.at_level(logging.WARNING):
        world.load_robots(folder / "arm.urdf", fixed_base=True)
    assert "'package://my_arm/meshes/lost.stl' (not found)" in caplog.text and str(folder / "meshes") in caplog.text
    assert "base.obj" not in caplog.text
    drawn = pybullet.getVisualShapeData(world.bodies[0], physicsClientId=world.client)
    assert [shape[4].decode().rpartition("/")[2] for shape in drawn] == ["base.obj"]
    world.close()


def test_added_mass_and_a_moved_centre_are_felt_as_inertia(tmp_path):
    arm = load_robot(str(arm_folder(tmp_path / "framed", FRAMED, "tool0")))
    frames = arm.chain.frames(np.zeros((1, 3)))
    # Upright: l3 is 0.4 m above j2, its centre of mass 0.1 m above j3, the tool 0.35 m.
    felt = arm.chain.added_inertia({"tool0": np.array([2.0])}, frames)[0]
    np.testing.assert_allclose(felt, [0.0, 2 * 0.75**2, 2 * 0.35**2], atol=1e-12)
    felt = arm.chain.added_inertia({"l3": np.array([1.0])}, frames)[0]
    np.testing.assert_allclose(felt, [0.002, 0.25 + 0.002, 0.01 + 0.002], atol=1e-12)
    felt = arm.chain.added_inertia({}, frames, {"l3": np.array([[0.0, 0.0, 0.1]])})[0]
    np.testing.assert_allclose(felt, [0.0, 2 * (0.36 - 0.25), 2 * (0.04 - 0.01)], atol=1e-12)


@pytest.mark.parametrize("changes", [{"payload": 5.0}, {"l3.mass_scale": 8.0}, {"payload": 2.0, "payload_offset": 0.5}])
def test_a_heavier_arm_answers_later(tmp_path, changes):
    # Weight is compensated here (gravity_scale 0): what remains of the mass is its inertia.
    arm = load_robot(str(arm_folder(tmp_path / "framed", FRAMED, "tool0")))
    moved = []
    for values in ({}, changes):
        sim, start = Simulation(arm, 1, {}, 2, 0), arm.nominal_state(1)
        params = sim.params.nominal[None].copy()
        for name, value in values.items():
            params[:, sim.params.column(name)] = value
        sim.reset(np.arange(1), start, start["joint_pos"], params)
        for _ in range(4):
            sim.step(start["joint_pos"] + [0.0, 0.0, 0.4])
        moved.append(float(sim.state["joint_pos"][0, 2]))
        sim.close()
    assert moved[1] < 0.95 * moved[0]
