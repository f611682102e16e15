"""Reading recordings of arms: every kind gives the same arrays, and every fault is named with its place."""

import numpy as np
import pytest

from sim2real.recordings.logs import Topics, read_log, read_logs
from sim2real.recordings.tables import LogError

JOINTS = ("pan", "lift")
HEADINGS = "time,des_dof_pos.pan,des_dof_pos.lift,dof_pos.pan,dof_pos.lift"


def content(rows=101):
    t = 0.02 * np.arange(rows)
    command = np.stack([np.sin(t), 0.5 * np.cos(t)], axis=1)
    return {"t": t, "q_cmd": command, "q": command + 0.01}


def save(folder, name="motion", **changes):
    path = folder / f"{name}.npz"
    np.savez(path, **(content() | changes))
    return path


def csv_text(columns):
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(names), *(",".join(f"{v:.6f}" for v in row) for row in rows)]) + "\n"


STATE, TRAJECTORY = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"


class BagMaker:
    """Writes bags of two joints that move as :func:`content` says."""

    def __init__(self, path, storage="mcap"):
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self.path, self.store, self.topics = path, get_typestore(Stores.ROS2_JAZZY), {}
        self.writer = Writer(path, version=9, storage_plugin=plugin)

    def kind(self, name):
        return self.store.types[name]

    def write(self, topic, kind, received_s, message):
        if topic not in self.topics:
            self.topics[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        stamp = round(received_s * 1e9) + 10**18
        self.writer.write(self.topics[topic], stamp, self.store.serialize_cdr(message, kind))

    def header(self, sent_s):
        stamp = 0 if sent_s is None else round(sent_s * 1e9) + 10**18
        time = self.kind("builtin_interfaces/msg/Time")(stamp // 10**9, stamp % 10**9)
        return self.kind("std_msgs/msg/Header")(time, "")

    def state(self, topic, received_s, sent_s, names, values, velocity=()):
        message = self.kind(STATE)(
            self.header(sent_s),
            list(names),
            np.array(values, dtype=float),
            np.array(velocity, dtype=float),
            np.zeros(0),
        )
        self.write(topic, STATE, received_s, message)

    def trajectory(self, topic, received_s, names, points):
        def point(after, values):
            duration = self.kind("builtin_interfaces/msg/Duration")(int(after), round(after % 1 * 1e9))
            place = np.array(values, dtype=float)
            return self.kind("trajectory_msgs/msg/JointTrajectoryPoint")(
                place, np.zeros(0), np.zeros(0), np.zeros(0), duration
            )

        message = self.kind(TRAJECTORY)(self.header(received_s), list(names), [point(*p) for p in points])
        self.write(topic, TRAJECTORY, received_s, message)


def write_bag(path, storage):
    bag, data = BagMaker(path, storage), content()
    with bag.writer:
        for t, command, position in zip(data["t"], data["q_cmd"], data["q"], strict=True):
            # In another order than the robot's: joints are matched by name.
            bag.state("/joint_commands", t, t, ["lift", "pan"], command[::-1])
            bag.state("/joint_states", t, t, ["lift", "pan"], position[::-1])
    return path


def test_npz_csv_and_bags_agree(tmp_path):
    data = content()
    columns = {
        "time": data["t"], "des_dof_pos.lift": data["q_cmd"][:, 1], "des_dof_pos.pan": data["q_cmd"][:, 0],
        "dof_pos.pan": data["q"][:, 0], "dof_pos.lift": data["q"][:, 1],
    }  # fmt: skip
    (tmp_path / "c.csv").write_text(csv_text(columns))
    logs = [
        read_log(save(tmp_path), JOINTS),
        read_log(tmp_path / "c.csv", JOINTS),
        read_log(write_bag(tmp_path / "bag_sqlite", "sqlite3"), JOINTS),
        read_log(write_bag(tmp_path / "bag_mcap", "mcap"), JOINTS),
    ]
    for log in logs:
        # A bag begins with the first state that a command has gone before.
        first = int(np.abs(data["q"][:, 0] - log.position[0, 0]).argmin())
        assert first <= 1 and len(log.time) == len(data["t"]) - first
        np.testing.assert_allclose(log.time, data["t"][first:] - data["t"][first], atol=1e-6)
        np.testing.assert_allclose(log.position, data["q"][first:], atol=2e-6)
        # Sent at the very stamp of the state: in force then, or just before.
        now = np.abs(log.command[1:] - data["q_cmd"][first + 1 :]).max(axis=1)
        before = np.abs(log.command[1:] - data["q_cmd"][first:-1]).max(axis=1)
        assert np.minimum(now, before).max() < 2e-6


def test_aliases_and_folders(tmp_path):
    save(tmp_path, "a", joint_names=np.array(["Rotation", "Pitch"]))
    save(tmp_path, "b")
    logs = read_logs([tmp_path], JOINTS, {"Rotation": "pan", "Pitch": "lift"})
    assert [log.name for log in logs] == ["a", "b"]
    with pytest.raises(LogError, match="several recordings are called a"):
        read_logs([tmp_path / "a.npz", tmp_path / "a.npz"], JOINTS, {"Rotation": "pan", "Pitch": "lift"})


def changed(name, row, column, value):
    array = content()[name].copy()
    array[row if column is None else (row, column)] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (changed("q", 7, 1, np.nan), "position of 'lift' is nan in row 7"),
        (changed("q_cmd", 3, 0, np.inf), "command of 'pan' is inf in row 3"),
        (changed("q", 9, 0, 90.0), "degrees"),
        (changed("t", 5, None, 0.08), "row 5 .* repeats"),
        (changed("t", 5, None, 0.01), "row 5 .* earlier"),
        (changed("t", slice(50, None), None, 3.0 + 0.02 * np.arange(51)), "nothing was recorded for"),
        ({"t": np.arange(101) * 1e-3}, "lasts 0.10 s"),
        ({"q": np.zeros((101, 3))}, "position is|'q' is"),
        ({"q_cmd": np.zeros((101, 3)), "q": np.zeros((101, 3))}, "holds 3 joints without names"),
        ({"joint_names": np.array(["pan", "elbow"])}, "lacks the joint 'lift'"),
    ],
)
def test_faults_are_named_with_their_place(tmp_path, changes, words):
    with pytest.raises(LogError, match=words) as caught:
        read_log(save(tmp_path, **changes), JOINTS)
    assert "motion.npz" in str(caught.value)


@pytest.mark.parametrize(("rows", "period", "taken"), [(3, 0.02, True), (5, 0.02, False), (22, 0.02, False),
                                                       (90, 0.001, True), (110, 0.001, False)])  # fmt: skip
def test_gaps_of_more_than_a_few_rows_are_refused(tmp_path, rows, period, taken):
    """Also fast recordings are without a tenth of a second at most."""
    data = content(2001)
    kept = {name: np.delete(values, slice(500, 500 + rows), axis=0) for name, values in data.items()}
    path = save(tmp_path, **kept | {"t": kept["t"] * period / 0.02})
    if taken:
        assert len(read_log(path, JOINTS).time) == 2001 - rows
        return
    with pytest.raises(LogError, match=r"nothing was recorded for .* after row 499 .*gaps up to 0\.1 s"):
        read_log(path, JOINTS)


def test_commands_beyond_a_turn_are_refused_though_any_unit_is_measured(tmp_path):
    read_log(save(tmp_path, **changed("q", 9, 0, 90.0)), JOINTS, any_unit=True)
    with pytest.raises(LogError, match=r"command of 'pan' is 90 in row 9, .* convert degrees first"):
        read_log(save(tmp_path, **changed("q_cmd", 9, 0, 90.0)), JOINTS, any_unit=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "time,des_dof_pos.pan,des_dof_pos.lift,dof_pos.pan,dof_pos.lift\n0,0,0,0,x\n",
            "'dof_pos.lift' is 'x' in row 0",
        ),
        ("time,des_dof_pos.pan,des_dof_pos.lift,dof_pos.pan,dof_pos.lift\n0,0,0,0\n", "row 0 has 4 values"),
        ("time,dof_pos.pan,dof_pos.lift\n0,0,0\n", "no command columns"),
        ("seconds,des_dof_pos.pan\n0,0\n", "one column of stamps"),
        ("time\n", "no rows"),
    ],
)
def test_csv_faults(tmp_path, text, words):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(LogError, match=words):
        read_log(tmp_path / "m.csv", JOINTS)


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(LogError, match="does not exist"):
        read_log(tmp_path / "none.npz", JOINTS)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(LogError, match="recordings are"):
        read_log(tmp_path / "a.txt", JOINTS)
    with pytest.raises(LogError, match="holds no recordings"):
        read_logs([tmp_path], JOINTS)
    (tmp_path / "b.npz").write_bytes(b"not a zip")
    with pytest.raises(LogError, match=r"not a readable \.npz"):
        read_log(tmp_path / "b.npz", JOINTS)


def moving(bag, command_topic="/joint_commands", state_topic="/joint_states", names=lambda k: JOINTS, skew=0.0):
    """A bag whose states come 1 ms after the commands; what its messages name may change with their number."""
    data = content()
    with bag.writer:
        for k, t in enumerate(data["t"]):
            order = [JOINTS.index(name) for name in names(k)]
            bag.state(command_topic, t, t, JOINTS, data["q_cmd"][k])
            bag.state(state_topic, t + 0.001, t + 0.001 - skew, names(k), data["q"][k][order])
    return bag.path


def test_joint_states_may_change_their_order(tmp_path):
    path = moving(BagMaker(tmp_path / "b"), names=lambda k: JOINTS if k % 2 else JOINTS[::-1])
    log = read_log(path, JOINTS)
    np.testing.assert_allclose(log.position, content()["q"], atol=1e-9)
    np.testing.assert_allclose(log.command, content()["q_cmd"], atol=1e-9)
    assert log.note == ""


def test_arm_and_gripper_may_be_published_apart(tmp_path):
    bag, data = BagMaker(tmp_path / "b"), content()
    with bag.writer:
        for k, t in enumerate(data["t"]):
            bag.state("/joint_commands", t, t, JOINTS, data["q_cmd"][k])
            bag.state("/arm/joint_states", t, t, ["pan"], data["q"][k, :1])
            if k % 2 == 0:
                bag.state("/gripper/joint_states", t, t, ["lift"], data["q"][k, 1:])
    log = read_log(bag.path, JOINTS)
    assert len(log.time) == len(data["t"])
    np.testing.assert_allclose(log.position, data["q"], atol=1e-4)  # lift is interpolated
    with pytest.raises(LogError, match="lacks the joint 'lift'"):
        read_log(bag.path, JOINTS, topics=Topics(state=("/arm/joint_states",)))


@pytest.mark.parametrize(("skew", "words"), [(0.3, "stamps of states are"), (10.0**9, "stamps of states are")])
def test_two_clocks_are_not_mixed(tmp_path, skew, words):
    """A robot whose clock is off, and simulated time: commands and states are put together by their receipt."""
    log = read_log(moving(BagMaker(tmp_path / "b"), skew=skew), JOINTS)
    assert words in log.note
    np.testing.assert_allclose(log.command, content()["q_cmd"], atol=1e-9)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("topic", ["/joint_states", "/joint_commands"])
def test_stamps_that_decrease_are_refused(tmp_path, storage, topic):
    """Sorted by stamp they would be somewhere else in the motion. Early by less than the middle shows."""
    bag, data = BagMaker(tmp_path / "b", storage), content()
    with bag.writer:
        for k, t in enumerate(data["t"]):
            for own, values in (("/joint_commands", data["q_cmd"]), ("/joint_states", data["q"])):
                bag.state(own, t, t - 0.297 * (own == topic and 40 <= k < 45), JOINTS, values[k])
    with pytest.raises(LogError, match=rf"message 40 on {topic} is stamped 1000000000\.5030 s, message 39 .*\.7800 s"):
        read_log(bag.path, JOINTS)


def test_joints_published_apart_on_one_topic_may_interleave(tmp_path):
    bag, data = BagMaker(tmp_path / "b"), content()
    with bag.writer:
        for k, t in enumerate(data["t"]):
            bag.state("/joint_commands", t, t, JOINTS, data["q_cmd"][k])
            bag.state("/joint_states", t, t, JOINTS[:1], data["q"][k, :1])
            bag.state("/joint_states", t + 0.001, t - 0.004, JOINTS[1:], data["q"][k, 1:])
    assert read_log(bag.path, JOINTS).note == ""


def with_velocity(path, velocity):
    bag, data = BagMaker(path), content()
    with bag.writer:
        for k, t in enumerate(data["t"]):
            bag.state("/joint_commands", t, t, JOINTS, data["q_cmd"][k])
            bag.state("/joint_states", t, t, JOINTS, data["q"][k], velocity(k))
    return path


def test_velocities_that_are_no_numbers(tmp_path):
    """Among others they are damage; of a joint that has no others they are not measured, and that is said."""
    log = read_log(with_velocity(tmp_path / "whole", lambda k: [k, -k]), JOINTS)
    assert log.velocity is not None and log.note == ""
    log = read_log(with_velocity(tmp_path / "none", lambda k: []), JOINTS)
    assert log.velocity is None and log.note == ""
    log = read_log(with_velocity(tmp_path / "never", lambda k: [k, np.nan]), JOINTS)
    assert log.velocity is None and log.note == "velocity is left out: no numbers for lift"
    damaged = with_velocity(tmp_path / "some", lambda k: [np.nan if k in (7, 9) else k, k])
    with pytest.raises(LogError, match=r"velocity of 'pan' is nan in message 7 on /joint_states \(2 such"):
        read_log(damaged, JOINTS)


@pytest.mark.parametrize(("topic", "words"), [("/joint_states", "position of 'lift' is nan"),
                                              ("/joint_commands", "a command")])  # fmt: skip
def test_angles_in_bags_that_are_no_numbers(tmp_path, topic, words):
    bag, data = BagMaker(tmp_path / "b"), content()
    data["q_cmd" if "command" in topic else "q"][7, 1] = np.nan
    with bag.writer:
        for k, t in enumerate(data["t"]):
            bag.state("/joint_commands", t, t, JOINTS, data["q_cmd"][k])
            bag.state("/joint_states", t, t, JOINTS, data["q"][k])
    with pytest.raises(LogError, match=f"{words} in message 7 on {topic}"):
        read_log(bag.path, JOINTS)


def test_trajectories_of_several_points_take_their_time(tmp_path):
    bag = BagMaker(tmp_path / "b")
    with bag.writer:
        bag.trajectory("/arm_controller/joint_trajectory", 0.0, JOINTS, [(0.0, [0, 1])])
        bag.trajectory("/arm_controller/joint_trajectory", 1.0, JOINTS, [(0.5, [1, 1]), (1.0, [1, 0]), (9.0, [5, 5])])
        bag.trajectory("/arm_controller/joint_trajectory", 2.5, JOINTS, [(0.0, [0.2, 0.2])])
        for k in range(151):
            bag.state("/joint_states", 0.02 * k + 0.001, 0.02 * k + 0.001, JOINTS, [0, 0])
    log = read_log(bag.path, JOINTS)

    def command(at):
        return log.command[round(at / 0.02)]

    np.testing.assert_allclose(command(0.9), [0, 1])
    np.testing.assert_allclose(command(1.26), [0.522, 1], atol=1e-6)
    np.testing.assert_allclose(command(1.76), [1, 0.478], atol=1e-6)
    np.testing.assert_allclose(command(2.9), [0.2, 0.2])


def test_a_trajectory_without_points_is_refused(tmp_path):
    bag = BagMaker(tmp_path / "b")
    with bag.writer:
        bag.trajectory("/joint_trajectory", 0.0, JOINTS, [])
        bag.state("/joint_states", 0.1, 0.1, JOINTS, [0, 0])
    with pytest.raises(LogError, match="no points"):
        read_log(bag.path, JOINTS)


def test_topics_are_found_or_named(tmp_path):
    for number, topic in enumerate(("/follower/action", "/controller/reference", "/setpoint")):
        assert len(read_log(moving(BagMaker(tmp_path / f"b{number}"), topic), JOINTS).time) == 101
    odd = moving(BagMaker(tmp_path / "odd"), "/leader/joint_states", "/follower/joint_states")
    with pytest.raises(LogError, match="--command-topic"):
        read_log(odd, JOINTS)
    log = read_log(odd, JOINTS, topics=Topics(("/follower/joint_states",), ("/leader/joint_states",)))
    np.testing.assert_allclose(log.command, content()["q_cmd"], atol=1e-9)
    log = read_log(odd, JOINTS, topics=Topics(command=("/leader/joint_states",)))
    np.testing.assert_allclose(log.position, content()["q"], atol=1e-9)
    with pytest.raises(LogError, match="no joint topic /nothing"):
        read_log(odd, JOINTS, topics=Topics(command=("/nothing",)))
    bag = BagMaker(tmp_path / "t")
    with bag.writer:
        bag.trajectory("/joint_trajectory", 0.0, JOINTS, [(0.0, [0, 1])])
    with pytest.raises(LogError, match="is trajectory_msgs/msg/JointTrajectory; --state-topic needs a sensor_msgs"):
        read_log(bag.path, JOINTS, topics=Topics(state=("/joint_trajectory",)))


def test_a_database_alone_is_its_bag(tmp_path):
    path = write_bag(tmp_path / "b", "sqlite3")
    (database,) = path.glob("*.db3")
    np.testing.assert_array_equal(read_log(database, JOINTS).position, read_log(path, JOINTS).position)
    lonely = tmp_path / "alone.db3"
    lonely.write_bytes(database.read_bytes())
    with pytest.raises(LogError, match="beside it"):
        read_log(lonely, JOINTS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: [1,\nb: {", r"metadata\.yaml, line 2: expected the node content"),
        (b"a: \0\n", "special characters are not allowed"),
        (b"\xff\xfe", "decode"),
        (b"- 1\n", "Invalid bag metadata"),
    ],
)
def test_damaged_metadata_is_said_in_one_line(tmp_path, text, words):
    path = write_bag(tmp_path / "b", "sqlite3")
    (path / "metadata.yaml").write_bytes(text)
    with pytest.raises(LogError, match=words) as caught:
        read_log(path, JOINTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_damaged_bags_give_one_error(tmp_path, storage):
    path = write_bag(tmp_path / "b", storage)
    (file,) = (part for part in path.iterdir() if part.suffix != ".yaml")
    whole, refused = file.read_bytes(), 0
    for start in range(0, len(whole) - 200, len(whole) // 12):
        file.write_bytes(whole[:start] + b"\xff" * 200 + whole[start + 200 :])
        try:
            read_log(path, JOINTS)
        except LogError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 4


def cut_off(path):
    path.write_bytes(path.read_bytes()[:700])


def one_array(path):
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").replace(path)


def flipped_bytes(path):
    raw = bytearray(path.read_bytes())
    raw[300:340] = b"\xff" * 40
    path.write_bytes(raw)


@pytest.mark.parametrize("damage", [cut_off, one_array, flipped_bytes, lambda path: path.write_bytes(b"")])
def test_damaged_npz(tmp_path, damage):
    path = save(tmp_path)
    damage(path)
    with pytest.raises(LogError, match=r"not a readable \.npz"):
        read_log(path, JOINTS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"t": np.array(["a"] * 101)}, "'t' holds <U1, not numbers"),
        ({"q": np.full((101, 2), "x")}, "'q' holds"),
        ({"t": np.zeros(0), "q": np.zeros((0, 2)), "q_cmd": np.zeros((0, 2))}, "holds 0 rows"),
        ({"t": content()["t"][:50]}, "'q_cmd' is"),
        ({"t": content()["t"] * 1e3}, "milliseconds, divide them by 1000"),
        ({"t": content()["t"] * 1e9}, "nanoseconds, divide them by 1000000000"),
        ({"joint_names": np.array(["pan", "lift", "more"])}, "names 3 joints"),
    ],
)
def test_arrays_that_make_no_sense(tmp_path, changes, words):
    path = save(tmp_path, **changes)
    for any_unit in (False, True):  # also for those who look for faults
        with pytest.raises(LogError, match=words):
            read_log(path, JOINTS, any_unit=any_unit)


def test_names_in_bytes_other_case_and_suffix(tmp_path):
    path = save(tmp_path, joint_names=np.array([b"LIFT", b"Rotation"]), t=content()["t"][:, None])
    path = path.rename(tmp_path / "MOTION.NPZ")
    (log,) = read_logs([tmp_path], JOINTS, {"rotation": "pan"})
    np.testing.assert_array_equal(log.position, content()["q"][:, ::-1])


def plain_csv():
    data = content()
    return csv_text(
        dict(zip(HEADINGS.split(","), np.column_stack((data["t"], data["q_cmd"], data["q"])).T, strict=True))
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda text: ("\ufeff" + text).encode(),
        lambda text: (text + "\n\n  \n").encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: "\n".join(f"{line},{'note' if i == 0 else 'abc'}" for i, line in enumerate(text.split())).encode(),
    ],
)
def test_harmless_oddities_of_csv(tmp_path, change):
    (tmp_path / "m.csv").write_bytes(change(plain_csv()))
    np.testing.assert_allclose(read_log(tmp_path / "m.csv", JOINTS).position, content()["q"], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (plain_csv().encode("utf-16"), "not a table in UTF-8"),
        (bytes(range(1, 128)) + b"\0\n", "not a table in UTF-8|holds no rows"),
        (plain_csv().replace("dof_pos.lift", "dof_pos.pan").encode(), "more than once the joint 'pan'"),
    ],
)
def test_csv_that_is_none(tmp_path, text, words):
    (tmp_path / "m.csv").write_bytes(text)
    with pytest.raises(LogError, match=words):
        read_log(tmp_path / "m.csv", JOINTS)


def test_recordings_of_one_name_are_told_apart_by_folder(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder, "wave")
    save(tmp_path / "a", "other")
    names = [log.name for log in read_logs([tmp_path / "a", tmp_path / "b"], JOINTS)]
    assert names == ["other", "a/wave", "b/wave"]


def test_names_that_others_give_to_arrays(tmp_path):
    data = content()
    for names in (("time", "des_dof_pos", "dof_pos"), ("timestamp", "action", "observation.state")):
        np.savez(tmp_path / "m.npz", **dict(zip(names, data.values(), strict=True)))
        np.testing.assert_array_equal(read_log(tmp_path / "m.npz", JOINTS).position, data["q"])
    np.savez(tmp_path / "m.npz", q_cmd=data["q_cmd"], q=data["q"])
    with pytest.raises(LogError, match=r"no array 't' of stamps, s; it has q_cmd, q\. .*at a fixed rate"):
        read_log(tmp_path / "m.npz", JOINTS)


@pytest.mark.parametrize(("suffix", "words"), [("pt", "a torch file"), ("npy", "pickled"), ("bag", "rosbags-convert")])
def test_files_of_other_kinds_say_what_to_write(tmp_path, suffix, words):
    (tmp_path / f"m.{suffix}").write_bytes(b"x")
    with pytest.raises(LogError, match=rf"{words}.*q_cmd and q \[T, J\] rad"):
        read_log(tmp_path / f"m.{suffix}", JOINTS)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_decimal_commas(tmp_path, mark):
    (tmp_path / "m.csv").write_text(plain_csv().replace(",", mark).replace(".", ","))
    text = (tmp_path / "m.csv").read_text().replace("pos,pan", "pos.pan").replace("pos,lift", "pos.lift")
    (tmp_path / "m.csv").write_text(text)
    np.testing.assert_allclose(read_log(tmp_path / "m.csv", JOINTS).position, content()["q"], atol=1e-6)


def test_a_table_without_headings_is_named(tmp_path):
    (tmp_path / "m.csv").write_text(plain_csv().partition("\n")[2])
    with pytest.raises(LogError, match=r"no headings: its first line is 5 numbers.*des_dof_pos\.pan,des_dof_pos\.lift"):
        read_log(tmp_path / "m.csv", JOINTS)


def test_headings_of_lerobot(tmp_path):
    text = plain_csv().replace("des_dof_pos.", "action.").replace("dof_pos.", "observation.state.")
    text = text.replace(".pan", ".pan.pos").replace(".lift", ".lift.pos")
    (tmp_path / "m.csv").write_text(text)
    np.testing.assert_allclose(read_log(tmp_path / "m.csv", JOINTS).command, content()["q_cmd"], atol=1e-6)


def test_prefixed_names(tmp_path):
    for names in (["left_lift", "left_pan"], ["arm/lift_joint", "arm/pan_joint"], ["lift.pos", "pan.pos"]):
        log = read_log(save(tmp_path, joint_names=np.array(names)), JOINTS)
        np.testing.assert_array_equal(log.position, content()["q"][:, ::-1])
    for names in (["left_lift", "right_pan"], ["span", "uplift"]):
        with pytest.raises(LogError, match="lacks the joint 'pan'"):
            read_log(save(tmp_path, joint_names=np.array(names)), JOINTS)


def test_prefixed_names_in_bags(tmp_path):
    bag, data = BagMaker(tmp_path / "b"), content()
    with bag.writer:
        for k, t in enumerate(data["t"]):
            bag.state("/joint_commands", t, t, ["r1/pan", "r1/lift"], data["q_cmd"][k])
            bag.state("/joint_states", t, t, ["r1/lift"], data["q"][k, 1:])
            bag.state("/joint_states", t, t, ["r1/pan"], data["q"][k, :1])
    np.testing.assert_allclose(read_log(bag.path, JOINTS).position, data["q"], atol=1e-9)


def lists(values):
    return [str([round(float(v), 6) for v in row]) for row in values]


def test_two_files_of_control_and_state(tmp_path):
    data = content()
    for name, values in (("control.csv", data["q_cmd"]), ("state_motor.csv", data["q"])):
        rows = [f'X,{1e6 * t:.3f},"{cell}"' for t, cell in zip(data["t"], lists(values), strict=True)]
        (tmp_path / name).write_text("\n".join(["type,timestamp,positions", *rows]))
    with pytest.raises(LogError, match=r"needs a joint_list\.txt"):
        read_log(tmp_path, JOINTS)
    (tmp_path / "joint_list.txt").write_text("lift\npan\n")
    (log,) = read_logs([tmp_path], JOINTS)
    np.testing.assert_allclose(log.position, data["q"][:, ::-1], atol=1e-6)
    np.testing.assert_allclose(log.command, data["q_cmd"][:, ::-1], atol=1e-6)
    assert log.period_s == pytest.approx(0.02)
    with pytest.raises(LogError, match="give the folder that holds"):
        read_log(tmp_path / "control.csv", JOINTS)


@pytest.mark.parametrize("version", [2, 3])
def test_lerobot_data_sets(tmp_path, version):
    import json

    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    data, names = content(), ["pan.pos", "gripper.pos"]
    degrees = [np.column_stack((np.degrees(data[n][:, 0]), 50.0 + 20.0 * data[n][:, 1])) for n in ("q_cmd", "q")]
    (tmp_path / "meta").mkdir()
    features = {n: {"names": names if version == 3 else {"motors": names}} for n in ("action", "observation.state")}
    (tmp_path / "meta" / "info.json").write_text(
        json.dumps({"codebase_version": f"v{version}.0", "features": features})
    )
    folder = tmp_path / "data" / "chunk-000"
    folder.mkdir(parents=True)
    columns = {"action": degrees[0].tolist(), "observation.state": degrees[1].tolist(), "timestamp": data["t"].tolist()}
    episodes = [pyarrow.table(columns | {"episode_index": [e] * len(data["t"])}) for e in range(2)]
    if version == 3:
        parquet.write_table(pyarrow.concat_tables(episodes), folder / "file-000.parquet")
    else:
        for e, table in enumerate(episodes):
            parquet.write_table(table, folder / f"episode_{e:06d}.parquet")
    logs = read_logs([tmp_path], ("pan", "gripper"))
    assert [log.name for log in logs] == [f"{tmp_path.name}/episode_{e}" for e in range(2)]
    np.testing.assert_allclose(logs[1].position[:, 0], data["q"][:, 0])
    opened = np.interp(degrees[1][:, 1], [0, 100], np.radians([-10.0, 110.0]))
    np.testing.assert_allclose(logs[0].position[:, 1], opened, atol=1e-5)
    assert "taken as degrees" in logs[0].note
    with pytest.raises(LogError, match="lacks the joint 'lift'"):
        read_logs([tmp_path], JOINTS)


@pytest.mark.parametrize("later", [0.0, 0.01])
@pytest.mark.parametrize("every", [1, 4])
def test_two_publishers_on_one_topic_are_refused(tmp_path, later, every):
    """A second node publishes zeros, at the same stamps or between, as often or more rarely."""
    bag, data = BagMaker(tmp_path / "b"), content()
    with bag.writer:
        for k, t in enumerate(data["t"]):
            bag.state("/joint_commands", t, t, JOINTS, data["q_cmd"][k])
            bag.state("/joint_states", t, t, JOINTS, data["q"][k], velocity=[0.0, 0.0])
            if k % every == 0:
                bag.state("/joint_states", t + later, t + later, JOINTS, [0.0, 0.0])
    with pytest.raises(LogError, match=r"on /joint_states jumps there and back .* two sources"):
        read_log(bag.path, JOINTS)


def test_two_sources_in_a_file_are_refused_and_noise_is_not(tmp_path):
    data, rng = content(), np.random.default_rng(0)
    woven = data["q"].copy()
    woven[::2] = 0.0
    with pytest.raises(LogError, match=r"position of 'pan' jumps there and back"):
        read_log(save(tmp_path, q=woven), JOINTS)
    for scale in (1.0, 180.0 / np.pi):  # encoder steps and noise, in radians and degrees
        noisy = scale * np.round((data["q"] + 0.003 * rng.standard_normal(data["q"].shape)) / 0.0015) * 0.0015
        read_log(save(tmp_path, q=noisy), JOINTS, any_unit=True)


def test_a_leader_and_its_follower_are_named(tmp_path):
    path = moving(BagMaker(tmp_path / "b"), "/leader/joint_states", "/follower/joint_states")
    with pytest.raises(LogError, match="--command-topic /leader/joint_states --state-topic /follower/joint_states"):
        read_log(path, JOINTS)


def test_a_clock_that_was_set_is_named_with_its_message(tmp_path):
    """Also where times of receipt are used, since stamps are of another clock."""
    for leap, words in ((-0.8, "is stamped"), (0.8, "leap by 0.80 s at message 50")):
        bag, data = BagMaker(tmp_path / f"b{leap}"), content()
        with bag.writer:
            for k, t in enumerate(data["t"]):
                bag.state("/joint_commands", t, None, JOINTS, data["q_cmd"][k])
                bag.state("/joint_states", t + 0.001, t + 2.0 + leap * (k >= 50), JOINTS, data["q"][k])
        with pytest.raises(LogError, match=words):
            read_log(bag.path, JOINTS)


ARRAY = "std_msgs/msg/Float64MultiArray"


def array(bag, topic, t, values):
    layout = bag.kind("std_msgs/msg/MultiArrayLayout")([], 0)
    bag.write(topic, ARRAY, t, bag.kind(ARRAY)(layout, np.array(values, dtype=float)))


def test_arrays_may_be_split_over_topics(tmp_path):
    joints = ("pan", "lift", "gripper")
    bag, data = BagMaker(tmp_path / "b"), content()
    with bag.writer:
        for k, t in enumerate(data["t"]):
            array(bag, "/gripper/commands", t, [0.1])
            array(bag, "/arm/commands", t, data["q_cmd"][k])
            bag.state("/joint_states", t + 0.001, t + 0.001, joints, [*data["q"][k], 0.1])
    log = read_log(bag.path, joints)
    np.testing.assert_allclose(log.command[:, :2], data["q_cmd"])
    assert (log.command[:, 2] == 0.1).all() and "pan, lift from /arm/commands and gripper from /gripper" in log.note
    order = Topics(command=("/gripper/commands", "/arm/commands"))
    log = read_log(bag.path, ("gripper", "pan", "lift"), topics=order)
    np.testing.assert_allclose(log.command[:, 1:], data["q_cmd"])
    with pytest.raises(LogError, match=r"2 on /arm/commands, 1 on /gripper/commands; the robot has 2 joints"):
        read_log(bag.path, JOINTS)


CONTROLLER = """std_msgs/Header header
string[] joint_names
trajectory_msgs/JointTrajectoryPoint {0}
trajectory_msgs/JointTrajectoryPoint {1}
"""


@pytest.mark.parametrize("names", [("reference", "feedback"), ("desired", "actual")])
def test_the_state_of_a_controller_holds_both_sides(tmp_path, names):
    from rosbags.typesys import get_types_from_msg

    kind, bag, data = "control_msgs/msg/JointTrajectoryControllerState", BagMaker(tmp_path / "b"), content()
    bag.store.register(get_types_from_msg(CONTROLLER.format(*names), kind))
    with bag.writer:
        for k, t in enumerate(data["t"]):
            points = [
                bag.kind("trajectory_msgs/msg/JointTrajectoryPoint")(
                    data[side][k][::-1].copy(), np.zeros(0), np.zeros(0), np.zeros(0),
                    bag.kind("builtin_interfaces/msg/Duration")(0, 0),
                )
                for side in ("q_cmd", "q")
            ]  # fmt: skip
            bag.write(
                "/arm_trajectory_controller/state", kind, t, bag.kind(kind)(bag.header(t), ["lift", "pan"], *points)
            )
    log = read_log(bag.path, JOINTS)
    np.testing.assert_allclose(log.command, data["q_cmd"])
    np.testing.assert_allclose(log.position, data["q"])
