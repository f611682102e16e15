"""Collecting images: matching by stamp, gates, spread, datasets that survive a kill, cards, bags, LeRobot."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from camera_rig import HEIGHT, JOINTS, WIDTH, K, draw, joints_at, make_noise, make_texture
from real_data import BOTH
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from calibration.collect.collector import BLURRED, BRIGHT, COVERED, DARK, DUPLICATE, RESOLUTION, Collector, Wanted
from calibration.collect.lerobot import export_lerobot
from calibration.collect.partial import partial_folder
from calibration.collect.sync import NO_JOINTS, NO_POSE, Frame, Synchroniser
from calibration.collect.topics import Topics, find_topics
from calibration.collect.views import Gates, distances, farthest_points, look_at, view_vector
from sim2real.cli.main import app, main
from sim2real.errors import CollectionError, ConfigError
from sim2real.images.dataset import read_dataset
from sim2real.images.messages import camera_of, decode_image, joints_of, pose_of, rgb_of
from sim2real.runtime.camera import load_camera

IMAGE = np.zeros((4, 6, 3), np.uint8)
TEXTURE, NOISE = make_texture(), make_noise()


def seen(number):
    """What the rig's camera sees, at a size that is quick to write."""
    return cv2.resize(draw(TEXTURE, NOISE, number), (160, 120), interpolation=cv2.INTER_AREA)


def blurred(image, length=15):
    return cv2.blur(image, (length, 1))


def frames(count, step=25, start=0):
    """Frames a second apart, views that differ."""
    for number in range(start, start + count):
        yield Frame(100.0 + number, seen(step * number), joints_at(0.1 * step * number))


def balanced(collector):
    return collector.seen == collector.kept + sum(collector.drops.values())


# ---------------------------------------------------------------- stamps


def test_an_image_gets_the_joint_positions_of_its_moment():
    sync = Synchroniser(Counter(), Counter())
    sync.add_joints(1.00, np.array([0.0, 1.0]))
    sync.add_image(1.025, IMAGE)
    assert not sync.ready() and sync.waiting == 1  # the state after it has not come
    sync.add_joints(1.05, np.array([1.0, 3.0]))
    (frame,) = sync.ready()
    np.testing.assert_allclose(frame.joint_pos, [0.5, 2.0])
    assert frame.stamp_s == 1.025 and frame.state_gap_s == pytest.approx(0.025)


def test_latency_of_the_camera_is_taken_into_account():
    sync = Synchroniser(Counter(), Counter(), latency_s=0.04)
    for t in np.arange(0.0, 1.0, 0.01):
        sync.add_joints(t, np.array([t]))
    sync.add_image(0.525, IMAGE)
    assert sync.ready()[0].joint_pos[0] == pytest.approx(0.485)


def test_poses_are_interpolated_the_short_way_round():
    sync = Synchroniser(Counter(), Counter(), joints=False, pose=True)
    turns = [Rotation.from_rotvec([0, 0, angle]).as_quat() for angle in (0.2, 0.3)]
    sync.add_pose(1.0, np.array([0, 0, 0, *turns[0]]))
    sync.add_pose(1.1, np.array([0, 0, 1.0, *-turns[1]]))  # the same rotation with the other sign
    sync.add_image(1.05, IMAGE)
    (frame,) = sync.ready()
    assert frame.ee_pos[2] == pytest.approx(0.5)
    assert Rotation.from_quat(frame.ee_quat).as_rotvec()[2] == pytest.approx(0.25, abs=1e-4)


@pytest.mark.parametrize("states", [[0.0, 0.3], [0.21, 0.25], [0.0, 0.15]], ids=["too far apart", "too late", "ended"])
def test_an_image_without_states_around_it_is_counted(states):
    drops = Counter()
    sync = Synchroniser(drops, Counter())
    for t in states:
        sync.add_joints(t, np.zeros(1))
    sync.add_image(0.2, IMAGE)
    assert not sync.ready(end=True) and drops == {NO_JOINTS: 1}


def test_an_image_does_not_wait_for_ever():
    drops = Counter()
    sync = Synchroniser(drops, Counter(), joints=False, pose=True)
    out = []
    for t in np.arange(0.0, 3.0, 1 / 30):
        sync.add_image(t, IMAGE)
        out += sync.ready()
    assert not out and drops[NO_POSE] > 50 and sync.waiting < 35
    assert sync.images == drops[NO_POSE] + sync.waiting


def test_stamps_that_repeat_run_back_or_start_anew_are_counted():
    drops, ignored = Counter(), Counter()
    sync = Synchroniser(drops, ignored)
    for t in [10.0, 10.1, 10.1, 10.05, 10.2]:
        sync.add_joints(t, np.zeros(1))
        sync.add_image(t, IMAGE)
    assert drops == {"stamp repeated": 1, "stamp out of order": 1}
    assert ignored == {"joint states: stamp repeated": 1, "joint states: stamp out of order": 1}
    assert len(sync.ready()) == 3
    sync.add_image(10.3, IMAGE)
    for t in [2.0, 2.1, 2.2]:  # a simulation was reset
        sync.add_joints(t, np.zeros(1))
        sync.add_image(t, IMAGE)
    assert [frame.stamp_s for frame in sync.ready()] == [2.1, 2.2]
    assert drops["clock set back"] == 2 and ignored["joint states: clock set back"] == 1
    assert sync.images == 9 == 3 + 2 + sum(drops.values())


def test_images_that_were_lost_show_in_the_stamps():
    sync = Synchroniser(Counter(), Counter(), joints=False)
    for number in [*range(20), *range(23, 40), *range(41, 60)]:
        sync.add_image(number / 30, IMAGE)
    assert sync.missing == 4 and len(sync.ready()) == 56


# ---------------------------------------------------------------- gates


@BOTH
def test_motion_blur_of_real_photographs_is_told_from_sharp_ones(recordings):
    files = sorted(recordings("calibration").glob("chessboard_opencv/*.jpg"))
    photographs = [cv2.imread(str(file))[..., ::-1].copy() for file in files]
    sharp = np.array([look_at(image).sharpness for image in photographs])
    threshold = Gates().blur * np.quantile(sharp, 0.8)
    assert sharp.min() > 1.5 * threshold
    rng = np.random.default_rng(0)
    for size in ((11, 1), (1, 11)):
        for image in photographs:
            noisy = cv2.blur(image, size) + rng.normal(0.0, 2.0, image.shape)
            assert look_at(np.clip(noisy, 0, 255).astype(np.uint8)).sharpness < threshold


def test_every_gate_drops_what_it_is_for_and_counts_it(tmp_path):
    collector = Collector(Wanted(tmp_path / "d", joint_names=JOINTS))
    good = list(frames(20))
    for frame in good:
        assert collector.offer(frame)
    t, joints, image = 999.0, np.array([1.0, 1.0, 1.0]), seen(7)
    big = np.zeros((240, 320, 3), np.uint8)
    cases = {
        BLURRED: Frame(t, blurred(image), joints),
        BRIGHT: Frame(t, np.where(np.arange(160)[:, None] < 60, 255, image).astype(np.uint8), joints),
        DARK: Frame(t, (image * (np.arange(160)[:, None] < 50)).astype(np.uint8), joints),
        DUPLICATE: Frame(t, good[3].image, good[3].joint_pos + 0.01),
        RESOLUTION: Frame(t, big, joints),
    }
    for reason, frame in cases.items():
        assert not collector.offer(frame) and collector.last == reason
    assert collector.drops == dict.fromkeys(cases, 1)
    collector.seen = len(good) + len(cases)
    assert balanced(collector)
    collector.finish()
    about = read_dataset(tmp_path / "d").about
    assert about["drops"] == dict.fromkeys(cases, 1) and about["images_seen"] == 25


def test_the_same_place_is_kept_again_when_it_looks_different_and_the_same_look_from_elsewhere(tmp_path):
    collector = Collector(Wanted(tmp_path / "d", joint_names=JOINTS))
    pose, image = np.zeros(3), seen(0)
    other = image.copy()
    other[50:70, 80:100] = 255 - other[50:70, 80:100]  # something was put down
    assert collector.offer(Frame(1.0, image, pose))
    assert not collector.offer(Frame(2.0, np.clip(image + 3.0, 0, 255).astype(np.uint8), pose))  # a little lighter
    assert collector.offer(Frame(3.0, other, pose))
    assert collector.offer(Frame(4.0, image, pose + np.array([0.1, 0, 0])))
    collector.discard()


def test_all_keeps_everything(tmp_path):
    collector = Collector(Wanted(tmp_path / "d", gates=None, joint_names=JOINTS))
    black = np.zeros((120, 160, 3), np.uint8)
    for t in range(5):
        assert collector.offer(Frame(float(t), black, np.zeros(3)))
    assert len(read_dataset(collector.finish())) == 5


# ---------------------------------------------------------------- spread


def test_farthest_points_cover_a_line_evenly():
    line = np.concatenate((np.linspace(0, 1, 200) ** 3, [0.5]))[:, None].astype(np.float32)
    chosen, radius = farthest_points(line, 5)
    even = np.abs(line - line[chosen].T).min(axis=1).max()
    assert radius == pytest.approx(even) and even <= 2 * 0.125
    first = np.abs(line - line[:5].T).min(axis=1).max()
    assert first > 0.9  # what the first five leave open
    everything, nothing = farthest_points(line[:3], 10)
    assert list(everything) == [0, 1, 2] and nothing == 0.0


def test_views_that_are_kept_cover_the_poses_better_than_the_first_or_random_ones(tmp_path):
    """A recording that lingers: nine tenths near one pose."""
    rng = np.random.default_rng(1)
    collector = Collector(Wanted(tmp_path / "d", count=15, joint_names=JOINTS))
    poses = []
    for number in range(300):
        spread = 0.1 if number % 10 else 1.2
        poses.append(spread * rng.uniform(-1, 1, 3))
        collector.offer(Frame(float(number), seen(0), poses[-1]))
    dataset = read_dataset(collector.finish())
    poses = np.array(poses)

    def worst(kept):
        return np.abs(poses[:, None] - kept[None]).max(axis=2).min(axis=1).max()

    kept = dataset.column("joint_pos")
    assert len(kept) == 15
    random = np.median([worst(poses[rng.choice(300, 15, replace=False)]) for _ in range(20)])
    assert worst(kept) < 0.75 * random and worst(kept) < worst(poses[:15])
    # The stated radius is in steps of the gates; it covers every candidate, and they cover every pose within a step.
    steps = Gates().joint_rad
    assert worst(kept) <= (dataset.about["cover_radius"] + collector._radius) * steps + 1e-6
    stamps = dataset.column("stamp_s")
    assert (np.diff(stamps) > 0).all()


def test_candidates_stay_few_however_long_the_recording(tmp_path):
    rng = np.random.default_rng(2)
    collector = Collector(Wanted(tmp_path / "d", count=4, joint_names=("a", "b")))
    image = np.full((12, 16, 3), 128, np.uint8)
    image[::2] = 90
    for number in range(3000):
        collector.offer(Frame(float(number), image, rng.uniform(-3, 3, 2)))
    assert collector.kept < 200 and collector.drops[COVERED] > 2000
    chosen = read_dataset(collector.finish()).column("joint_pos")
    assert np.abs(chosen[:, None] - chosen[None]).max(axis=2)[~np.eye(4, dtype=bool)].min() > 2.0


def test_a_recording_belongs_to_one_process(tmp_path):
    """Also before its first image, when there is no folder yet."""
    collector = Collector(Wanted(tmp_path / "d", joint_names=JOINTS))
    for resume in (False, True):
        with pytest.raises(ConfigError, match=rf"d is being written by process {os.getpid()}"):
            Collector(Wanted(tmp_path / "d", joint_names=JOINTS), resume)
    collector.close()
    Collector(Wanted(tmp_path / "d", joint_names=JOINTS)).close()
    assert not list(tmp_path.iterdir())


def test_without_poses_views_are_told_apart_by_their_look(tmp_path):
    collector = Collector(Wanted(tmp_path / "d", count=3))
    for number in (0, 0, 0, 60, 60, 120, 0):
        collector.offer(Frame(float(collector.kept + sum(collector.drops.values())), seen(number)))
    assert collector.kept == 3 and collector.drops == {DUPLICATE: 4}
    collector.discard()


def test_a_view_is_as_far_as_its_largest_difference():
    gates = Gates(appearance=0.04, joint_rad=0.05, ee_m=0.01)
    cells = np.zeros((12, 16, 3), np.float32)
    a = view_vector(gates, cells, np.zeros(2), np.zeros(3))
    b = view_vector(gates, cells, np.array([0.0, 0.2]), np.array([0.01, 0, 0]))
    assert distances(a[None], b)[0] == pytest.approx(4.0)


# ---------------------------------------------------------------- datasets


def test_nothing_is_overwritten(tmp_path):
    out = tmp_path / "d"
    wanted = Wanted(out, joint_names=JOINTS)
    with pytest.raises(CollectionError, match="no unfinished recording"):
        Collector(wanted, resume=True)
    collector = Collector(wanted)
    for frame in frames(3):
        collector.offer(frame)
    collector.close()
    with pytest.raises(CollectionError, match="unfinished recording; go on with"):
        Collector(wanted)
    with pytest.raises(CollectionError, match="with the joints"):
        Collector(Wanted(out, joint_names=("a", "b", "c")), resume=True)
    with pytest.raises(CollectionError, match="begun with gates"):
        Collector(Wanted(out, gates=None, joint_names=JOINTS), resume=True)
    Collector(wanted, resume=True).finish()
    assert not partial_folder(out).exists() and len(read_dataset(out)) == 3
    for resume in (False, True):
        with pytest.raises(CollectionError, match="exists; choose another folder"):
            Collector(wanted, resume)


def test_images_that_are_written_in_a_hurry_are_the_same(tmp_path):
    collector = Collector(Wanted(tmp_path / "d", gates=None, count=0, joint_names=JOINTS))
    written = list(frames(4))
    for number, frame in enumerate(written):
        collector.hurried = number % 2 == 1
        collector.offer(frame)
    images = read_dataset(collector.finish()).images
    assert (images == [frame.image for frame in written]).all()


def test_an_end_that_was_interrupted_is_made_up_for(tmp_path):
    collector = Collector(Wanted(tmp_path / "d", joint_names=JOINTS))
    for frame in frames(3):
        collector.offer(frame)
    collector.close()
    (tmp_path / "d.new" / "images").mkdir(parents=True)  # killed while the dataset was being brought together
    (tmp_path / "d.new" / "images" / "000000.png").write_bytes(b"")
    assert len(read_dataset(Collector(Wanted(tmp_path / "d", joint_names=JOINTS), resume=True).finish()).images) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_recording_of_nothing_leaves_nothing(tmp_path):
    collector = Collector(Wanted(tmp_path / "d"))
    with pytest.raises(CollectionError, match="not one usable image"):
        collector.finish()
    assert not list(tmp_path.iterdir())


WRITE = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/calibration"]
from test_collect import JOINTS, Collector, Wanted, frames
collector = Collector(Wanted(Path(sys.argv[1]), joint_names=JOINTS, count=30), resume=len(sys.argv) > 3)
for frame in frames(4000, start=collector.kept):
    collector.seen += 1
    collector.offer(frame)
"""


def test_a_kill_leaves_a_whole_dataset_that_can_go_on(tmp_path):
    out = tmp_path / "d"
    partial = partial_folder(out)
    for turn in range(3):
        more = ["resume"] if turn else []
        before = len((partial / "frames.jsonl").read_bytes().splitlines()) if turn else 0
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(out), str(Path(__file__).parents[1]), *more],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + 60
        lines = partial / "frames.jsonl"
        while not lines.is_file() or len(lines.read_bytes().splitlines()) < before + 25:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.003 * turn + 0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        dataset = read_dataset(partial)
        assert len(dataset) >= before + 25 - 1 and not out.exists()
        assert dataset.images.shape[1:] == (120, 160, 3)  # every image that has a line is whole
        stamps = dataset.column("stamp_s")
        assert len(np.unique(stamps)) == len(stamps)
    # A line that was torn by the power cut is no frame.
    with (partial / "frames.jsonl").open("ab") as file:
        file.write(b'{"image": "images/0')
    assert len(read_dataset(partial)) == len(dataset)
    collector = Collector(Wanted(out, joint_names=JOINTS, count=30), resume=True)
    assert collector.kept == len(dataset) and balanced(collector)
    assert not collector.offer(next(frames(1)))  # what was recorded before the kill is remembered
    assert collector.last == DUPLICATE
    collector.seen += 1
    collector.finish()
    finished = read_dataset(out)
    assert len(finished) == 30 and finished.images.shape == (30, 120, 160, 3)
    assert finished.about["images_seen"] == 30 + sum(finished.about["drops"].values())
    assert set(finished.column("session")) <= {0, 1, 2, 3}


def test_where_the_camera_was_is_written_down(tmp_path):
    on_hand = np.eye(4)
    on_hand[:3, 3] = (0.0, 0.0, 0.1)
    standing = np.eye(4)
    standing[:3, 3] = (1.0, 2.0, 3.0)
    quat = Rotation.from_euler("y", 90, degrees=True).as_quat()  # the hand's z is the base's x
    frame = Frame(1.0, seen(0), np.zeros(3), np.array([0.3, 0.0, 0.2]), quat)
    for name, pose, place in (
        ("hand", {"T_ee_camera": on_hand}, (0.4, 0, 0.2)),
        ("stand", {"T_base_camera": standing}, (1, 2, 3)),
    ):
        collector = Collector(Wanted(tmp_path / name, joint_names=JOINTS))
        collector.camera = replace(camera_of(info_message()), **pose)
        collector.offer(frame)
        dataset = read_dataset(collector.finish())
        np.testing.assert_allclose(dataset.column("T_base_camera")[0][:3, 3], place, atol=1e-9)


def test_the_card_says_what_is_in_it(tmp_path):
    collector = Collector(Wanted(tmp_path / "d", what="a mug | on a table", source="/cam", joint_names=JOINTS))
    collector.camera = camera_of(info_message())
    for frame in [*frames(4), *frames(2)]:
        collector.seen += 1
        collector.offer(frame)
    out = collector.finish()
    card = (out / "README.md").read_text()
    for words in ("# a mug", "4 of 6 that came", "near-duplicate | 2", "600.00, 600.00, 319.50", "pan (rad)", "/cam"):
        assert words in card, words
    sheet = cv2.imread(str(out / "contact_sheet.jpg"))
    assert sheet.shape == (150, 4 * 202 - 2, 3)
    first = cv2.resize(read_dataset(out).images[0], (200, 150))
    assert np.abs(sheet[:, :200, ::-1].astype(int) - first).mean() < 12  # JPEG
    assert load_camera(out / "camera.yaml").matrix[0, 0] == 600.0


# ---------------------------------------------------------------- messages


def header(stamp_s):
    return SimpleNamespace(stamp=SimpleNamespace(sec=int(stamp_s), nanosec=round((stamp_s % 1) * 1e9)), frame_id="")


def image_message(data, encoding, step, shape=(2, 4)):
    return SimpleNamespace(
        header=header(1.0),
        height=shape[0],
        width=shape[1],
        encoding=encoding,
        step=step,
        data=np.frombuffer(data, np.uint8),
    )


def info_message(**changes):
    return SimpleNamespace(
        **({"width": WIDTH, "height": HEIGHT, "k": list(K), "d": [0.0] * 5, "distortion_model": "plumb_bob"} | changes)
    )


def test_encodings_come_out_red_where_they_are_red():
    red = {"rgb8": [200, 10, 20], "bgr8": [20, 10, 200], "rgba8": [200, 10, 20, 9], "bgra8": [20, 10, 200, 9]}
    for encoding, pixel in red.items():
        padded = bytes(pixel) * 4 + b"\1\2\3"  # rows may be longer than their pixels
        image = rgb_of(image_message(padded * 2, encoding, len(padded)))
        assert image.shape == (2, 4, 3) and (image == [200, 10, 20]).all(), encoding
    assert (rgb_of(image_message(bytes([7] * 8), "mono8", 4)) == 7).all()
    for encoding, order in (("yuv422_yuy2", (76, 85, 76, 255)), ("uyvy", (85, 76, 255, 76))):  # pure red, BT.601
        image = rgb_of(image_message(bytes(order) * 4, encoding, 8))
        assert image[0, 0, 0] > 200 and image[0, 0, 1:].max() < 60, encoding
    for encoding, at in (
        ("bayer_rggb8", (0, 0)),
        ("bayer_bggr8", (1, 1)),
        ("bayer_grbg8", (0, 1)),
        ("bayer_gbrg8", (1, 0)),
    ):
        mosaic = np.zeros((8, 8), np.uint8)
        mosaic[at[0] :: 2, at[1] :: 2] = 200  # only what is behind the red filters is lit
        image = rgb_of(image_message(mosaic.tobytes(), encoding, 8, (8, 8)))[3:5, 3:5]
        assert image[..., 0].min() > 150 and image[..., 1:].max() < 20, encoding


def test_compressed_images_are_decoded():
    picture = seen(3)
    data = cv2.imencode(".png", picture[..., ::-1])[1].ravel()
    assert (rgb_of(SimpleNamespace(header=header(1.0), format="rgb8; png compressed", data=data)) == picture).all()


def test_broken_images_are_refused():
    for message, words in (
        (image_message(bytes(8), "16UC1", 4), "'16UC1' is not known"),
        (image_message(bytes(7), "mono8", 4), "holds 7 bytes"),
        (image_message(b"", "mono8", 4, (0, 4)), "holds 0 bytes"),
        (image_message(bytes(16), "rgb8", 8), "not 'rgb8'"),
        (SimpleNamespace(format="jpeg", data=np.frombuffer(b"no picture", np.uint8)), "cannot be decoded"),
    ):
        with pytest.raises(ConfigError, match=words):
            decode_image(message, "here")


def test_other_messages_are_checked():
    joints = SimpleNamespace(name=["b", "a"], position=[1.0, 2.0])
    np.testing.assert_array_equal(joints_of(joints, ("a", "b")), [2.0, 1.0])
    assert joints_of(joints, ("a", "c")) is None
    assert joints_of(SimpleNamespace(name=["a"], position=[float("nan")]), ("a",)) is None
    assert joints_of(SimpleNamespace(name=["a"], position=[]), ("a",)) is None
    place = SimpleNamespace(x=1.0, y=2.0, z=3.0)
    pose = SimpleNamespace(
        pose=SimpleNamespace(position=place, orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=0.0))
    )
    assert pose_of(pose) is None  # a quaternion that was never set
    pose.pose.orientation.w = 1.0
    np.testing.assert_array_equal(pose_of(pose), [1, 2, 3, 0, 0, 0, 1])
    with pytest.raises(CollectionError, match="not calibrated"):
        camera_of(info_message(k=[0.0] * 9))
    with pytest.raises(CollectionError, match="'weird' is not known"):
        camera_of(info_message(distortion_model="weird"))
    assert camera_of(info_message(d=[0.1, 0.2, 0.0, 0.0])).distortion.tolist() == [0.1, 0.2, 0.0, 0.0, 0.0]


def test_topics_are_found_or_asked_for():
    types = {
        "/a/image_raw": "sensor_msgs/msg/Image", "/a/camera_info": "sensor_msgs/msg/CameraInfo",
        "/b/camera_info": "sensor_msgs/msg/CameraInfo", "/joint_states": "sensor_msgs/msg/JointState",
    }  # fmt: skip
    assert find_topics(Topics(), types, "x") == Topics("/a/image_raw", "/a/camera_info", "/joint_states", None)
    compressed = {
        "/a/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
        "/a/camera_info": types["/a/camera_info"],
    }
    assert find_topics(Topics(joints=None), compressed, "x").info == "/a/camera_info"
    for asked, there, words in (
        (Topics(), types | {"/b/image": "sensor_msgs/msg/Image"}, "2 topics of .*choose one with --image"),
        (Topics("/c"), types, "--image /c should be .*not there; of this type: /a/image_raw"),
        (Topics("/joint_states"), types, "it is sensor_msgs/msg/JointState"),
        (Topics(), {"/a/image_raw": "sensor_msgs/msg/Image"}, "--no-info"),
        (Topics(info=None), {"/a/image_raw": "sensor_msgs/msg/Image"}, "--no-joints"),
    ):
        with pytest.raises(CollectionError, match=words):
            find_topics(asked, there, "x")


# ---------------------------------------------------------------- bags


def make_bag(path, events, encoding="rgb8"):
    """A bag of (kind, stamp, value) in this order; kind is image, info, joints."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    kind_of = {"image": "Image", "info": "CameraInfo", "joints": "JointState"}
    topics = {"image": "/camera/image_raw", "info": "/camera/camera_info", "joints": "/joint_states"}
    kinds = {name: store.types[f"sensor_msgs/msg/{kind}"] for name, kind in kind_of.items()}
    stamp_type, header_type = store.types["builtin_interfaces/msg/Time"], store.types["std_msgs/msg/Header"]
    roi = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        there = {name: writer.add_connection(topics[name], kinds[name].__msgtype__, typestore=store)
                 for name in dict.fromkeys(kind for kind, *_ in events)}  # fmt: skip
        for order, (kind, stamp_s, value) in enumerate(events):
            top = header_type(stamp_type(int(stamp_s), round(stamp_s % 1 * 1e9)), "camera")
            if kind == "image":
                h, w = value.shape[:2]
                message = kinds[kind](top, h, w, encoding, 0, 3 * w, value.ravel())
            elif kind == "info":
                k = np.array(K) * (np.array([0.25] * 6 + [1.0] * 3) if value is None else value)
                message = kinds[kind](
                    top, 120, 160, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0, roi
                )
            else:
                message = kinds[kind](top, list(JOINTS), np.array(value), np.zeros(0), np.zeros(0))
            writer.write(there[kind], 1_000_000_000 + order, store.serialize_cdr(message, kinds[kind].__msgtype__))
    return path


def recording(numbers=range(0, 400, 20), rate=10.0):
    """Events of a recording at 10 images a second."""
    events = [("info", 100.0, None)]
    for index, number in enumerate(numbers):
        t = 100.0 + index / rate
        events += [
            ("joints", t - 0.03, joints_at(t - 0.03)),
            ("image", t, seen(number)),
            ("joints", t + 0.02, joints_at(t + 0.02)),
        ]
    return events


def test_a_bag_becomes_a_dataset(tmp_path):
    pytest.importorskip("rosbags")
    bag, out, figures = make_bag(tmp_path / "bag", recording()), tmp_path / "d", tmp_path / "f.json"
    done = CliRunner().invoke(
        app, ["collect", "bag", str(bag), str(out), "--count", "8", "--what", "x", "--json", str(figures)]
    )
    assert done.exit_code == 0, done.output
    dataset = read_dataset(out)
    assert len(dataset) == 8 and dataset.images.shape == (8, 120, 160, 3)
    for stamp, joints, image in zip(
        dataset.column("stamp_s"), dataset.column("joint_pos"), dataset.images, strict=True
    ):
        np.testing.assert_allclose(joints, joints_at(stamp), atol=2e-3)  # linear between states 50 ms apart
        assert (image == seen(20 * round((stamp - 100.0) * 10))).all()  # the image of that stamp, and its colours
    saved = json.loads(figures.read_text())
    assert saved["images_seen"] == 20 == saved["kept"] + sum(saved["drops"].values())
    again = CliRunner().invoke(app, ["collect", "bag", str(bag), str(out)])
    assert isinstance(again.exception, CollectionError)


def test_kinematics_give_the_end_effectors_pose(tmp_path):
    pytest.importorskip("rosbags")
    pytest.importorskip("pybullet")
    bag = tmp_path / "bag"
    robot = tmp_path / "arm"
    robot.mkdir()
    (robot / "model.urdf").write_text(URDF)
    (robot / "robot.yaml").write_text("urdf: model.urdf\nee: tip\ncontrol_rate_hz: 20\n")
    make_bag(bag, recording())
    done = CliRunner().invoke(app, ["collect", "bag", str(bag), str(tmp_path / "d"), "--robot", str(robot)])
    assert done.exit_code == 0, (done.output, done.exception)
    dataset = read_dataset(tmp_path / "d")
    poses, joints = dataset.column("T_base_ee"), dataset.column("joint_pos")
    for pose, q in zip(poses, joints, strict=True):
        turn = Rotation.from_euler("z", q[0]) * Rotation.from_euler("y", q[1]) * Rotation.from_euler("y", q[2])
        np.testing.assert_allclose(pose[:3, :3], turn.as_matrix(), atol=1e-6)


_LINK = (
    '<link name="{}"><inertial><origin xyz="0.05 0 0.05"/><mass value="0.1"/>'
    '<inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>'
)
_JOINT = (
    '<joint name="{}" type="revolute"><parent link="{}"/><child link="{}"/><origin xyz="0 0 0.1"/><axis xyz="{}"/>'
    '<limit lower="-2" upper="2" effort="5" velocity="3"/></joint>'
)
URDF = (
    '<robot name="arm">' + "".join(_LINK.format(name) for name in ("base", "turn", "upper", "tip"))
    + _JOINT.format("pan", "base", "turn", "0 0 1") + _JOINT.format("lift", "turn", "upper", "0 1 0")
    + _JOINT.format("elbow", "upper", "tip", "0 1 0") + "</robot>"
)  # fmt: skip


def only(events, *kinds):
    return [event for event in events if event[0] in kinds]


def still(events, kind):
    return [(k, 100.0 if k == kind else t, v) for k, t, v in events]


@pytest.mark.parametrize(
    ("change", "encoding", "words"),
    [
        (lambda e: only(e, "image", "joints"), "rgb8", "0 topics of sensor_msgs/msg/CameraInfo.*--no-info"),
        (lambda e: only(e, "image", "info"), "rgb8", "0 topics of sensor_msgs/msg/JointState.*--no-joints"),
        (lambda e: only(e, "info", "joints"), "rgb8", "choose one with --image"),
        (lambda e: e, "32FC1", "'32FC1' is not known"),
        (
            lambda e: [(k, t + 50.0 * (k == "joints"), v) for k, t, v in e],
            "rgb8",
            "0 of 20 images could be used.*no joint state.*different clocks",
        ),
        (lambda e: [(k, t, 0.0 if k == "info" else v) for k, t, v in e], "rgb8", "not calibrated"),
        (lambda e: [x for x in e if x[0] != "info"] + [x for x in e if x[0] == "info"], "rgb8", "no camera info yet"),
    ],
    ids=["no info", "no joints", "no images", "encoding", "other clock", "uncalibrated", "late info"],
)
def test_bags_that_cannot_be_used_end_in_one_clear_error(tmp_path, capsys, change, encoding, words):
    pytest.importorskip("rosbags")
    bag = make_bag(tmp_path / "bag", change(recording()), encoding)
    with pytest.raises(SystemExit) as stop:
        main(["collect", "bag", str(bag), str(tmp_path / "d")])
    assert stop.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error:")
    assert re.search(words, error), error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bag"]  # nothing is left behind


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: still(e, "image"), "images' stamps stand still at 100.000 s"),
        (lambda e: still(e, "joints"), "stamps of joint states stand still at 100.000 s"),
        (lambda e: [(k, t if k != "image" else 200.0 - 1e-3 * t, v) for k, t, v in e], "run backwards"),
        (lambda e: [(k, t + 50.0 * (k == "joints"), v) for k, t, v in e], "different clocks"),
    ],
    ids=["images still", "joints still", "backwards", "other clock"],
)
def test_a_long_recording_that_cannot_work_is_stopped_with_the_reason(tmp_path, change, words):
    pytest.importorskip("rosbags")
    bag = make_bag(tmp_path / "bag", change(recording(range(80), 30.0)))
    done = CliRunner().invoke(app, ["collect", "bag", str(bag), str(tmp_path / "d")])
    assert isinstance(done.exception, CollectionError) and words in str(done.exception), done.exception


def test_what_goes_wrong_in_between_is_counted(tmp_path):
    pytest.importorskip("rosbags")
    events = recording()
    big = np.zeros((240, 320, 3), np.uint8)
    events.insert(20, ("image", events[19][1] + 0.001, big))  # the camera was set to another resolution
    events.insert(32, ("info", 0.0, np.full(9, 0.5)))  # and zoomed
    events.insert(41, ("info", 0.0, None))
    bag, figures = make_bag(tmp_path / "bag", events), tmp_path / "f.json"
    done = CliRunner().invoke(
        app, ["collect", "bag", str(bag), str(tmp_path / "d"), "--count", "0", "--json", str(figures)]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    saved = json.loads(figures.read_text())
    assert saved["drops"] == {"camera info changed": 3, "resolution changed": 1}
    assert saved["images_seen"] == 21 == saved["kept"] + 4


# ---------------------------------------------------------------- LeRobot


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A dataset of two sessions."""
    out = tmp_path_factory.mktemp("collected") / "d"
    for resume in (False, True):
        collector = Collector(Wanted(out, what="a test", joint_names=JOINTS, count=0), resume)
        for frame in frames(7, start=7 * resume):
            collector.seen += 1
            quat = Rotation.from_rotvec([0, 0, 0.1 * frame.stamp_s]).as_quat()
            collector.offer(Frame(frame.stamp_s, frame.image, frame.joint_pos, frame.joint_pos, quat))
        collector.close() if not resume else collector.finish()
    return read_dataset(out)


def test_lerobot_export_holds_what_was_collected(tmp_path, collected):
    pq = pytest.importorskip("pyarrow.parquet")
    root = tmp_path / "l"
    info = export_lerobot(collected, root, robot_type="so101")
    assert info == json.loads((root / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["total_frames"], info["total_episodes"], info["fps"]) == ("v3.0", 14, 2, 1)
    table = pq.read_table(root / info["data_path"].format(chunk_index=0, file_index=0)).to_pydict()
    for index, image in enumerate(collected.images):
        stored = cv2.imdecode(
            np.frombuffer(table["observation.images.camera"][index]["bytes"], np.uint8), cv2.IMREAD_COLOR
        )
        assert (stored[..., ::-1] == image).all()
    np.testing.assert_allclose(table["observation.state"], collected.column("joint_pos"), atol=1e-6)
    np.testing.assert_allclose(table["time_s"], np.arange(14.0))
    assert table["episode_index"] == [0] * 7 + [1] * 7 and table["frame_index"] == [*range(7)] * 2
    assert table["index"] == [*range(14)] and table["timestamp"][8] == pytest.approx(1.0)
    assert info["features"]["observation.state"]["names"] == list(JOINTS)
    assert json.loads((root / "meta" / "sim2real.json").read_text())["first_stamp_s"] == 100.0
    stats = json.loads((root / "meta" / "stats.json").read_text())
    pixels = collected.images.reshape(-1, 3) / 255.0
    for name, expected in (
        ("mean", pixels.mean(axis=0)), ("std", pixels.std(axis=0)), ("max", pixels.max(axis=0)),
        ("q50", np.quantile(pixels, 0.5, axis=0, method="inverted_cdf")),
    ):  # fmt: skip
        np.testing.assert_allclose(np.ravel(stats["observation.images.camera"][name]), expected, atol=1e-9)
    np.testing.assert_allclose(stats["observation.state"]["std"], collected.column("joint_pos").std(axis=0))
    with pytest.raises(ConfigError, match="exists"):
        export_lerobot(collected, root)


def test_lerobots_own_package_reads_the_export(tmp_path, collected):
    """Its standalone package asks for older packages than ours: run this test in an environment of its own."""
    reader = pytest.importorskip("ledataset.datasets.lerobot_dataset", reason="needs the package lerobot-dataset")
    export_lerobot(collected, tmp_path / "l")
    read = reader.LeRobotDataset("local/test", root=tmp_path / "l", delta_timestamps={"observation.state": [-1.0, 0.0]})
    assert len(read) == 14 and read.num_episodes == 2 and read.fps == 1
    for index in range(14):
        item = read[index]
        image = (255 * item["observation.images.camera"].permute(1, 2, 0)).round().numpy()
        assert (image == collected.images[index]).all()
        np.testing.assert_allclose(item["observation.state"][1], collected.column("joint_pos")[index], atol=1e-6)
        assert item["task"] == "a test" and bool(item["observation.state_is_pad"][0]) == (index % 7 == 0)
        np.testing.assert_allclose(item["observation.ee_pose"][:3], collected.column("joint_pos")[index], atol=1e-6)
        assert item["time_s"] == index
    # Its own statistics from the same frames; it samples pixels, ours counts all.
    again = reader.compute_episode_stats(
        {"observation.state": collected.column("joint_pos")}, {"observation.state": {"dtype": "float32"}}
    )
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(
            read.meta.stats["observation.state"][name], again["observation.state"][name], atol=1e-6
        )
