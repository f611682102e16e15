"""Reading recordings of arms: every kind gives the same arrays, and every fault is named with its place."""

import numpy as np
import pytest

from sim2real.identify.logs import read_log, read_logs
from sim2real.identify.tables import LogError

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


def write_bag(path, storage, command_type="JointState"):
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    state, header = store.types["sensor_msgs/msg/JointState"], store.types["std_msgs/msg/Header"]
    stamp = store.types["builtin_interfaces/msg/Time"]
    data = content()
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        topics = {
            name: writer.add_connection(name, state.__msgtype__, typestore=store)
            for name in ("/joint_states", "/joint_commands")
        }
        for t, command, position in zip(data["t"], data["q_cmd"], data["q"], strict=True):
            nanoseconds = round(t * 1e9) + 10**18
            made = header(stamp(nanoseconds // 10**9, nanoseconds % 10**9), "")
            # In another order than the robot's: joints are matched by name.
            for topic, values in (("/joint_commands", command), ("/joint_states", position)):
                message = state(made, ["lift", "pan"], values[::-1].copy(), np.zeros(0), np.zeros(0))
                writer.write(topics[topic], nanoseconds, store.serialize_cdr(message, state.__msgtype__))
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
