"""A camera and an arm over ROS 2 whose every value can be checked afterwards: the stamp says what must be seen.

Every image carries its number in its pixels, moves slowly, and is stamped ``start + number / rate``; every joint is a
known function of its stamp. Run as a process of its own:

    python tests/camera_rig.py --rate 30 --seconds 60 --joint-rate 100
"""

import argparse
import json
import math
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

JOINTS = ("pan", "lift", "elbow")
WIDTH, HEIGHT = 640, 480
K = (600.0, 0.0, 319.5, 0.0, 600.0, 239.5, 0.0, 0.0, 1.0)
BITS, BLOCK = 16, 16
PROFILE = Path(__file__).parent.parent / "launch" / "fastdds_images.xml"


def joints_at(stamp_s):
    """[3] rad; smooth, so that what is between two states is known too."""
    return np.array([0.8 * math.sin(0.9 * stamp_s), 0.5 * math.sin(0.5 * stamp_s + 1.0), 0.3 * math.cos(0.7 * stamp_s)])


def make_texture(width=WIDTH, height=HEIGHT):
    """Something with edges at every scale [height, 3 width, 3], twice as wide again as what is seen."""
    rng = np.random.default_rng(0)
    texture = np.zeros((height, 3 * width, 3))
    for cell in (8, 24, 80):
        coarse = rng.uniform(0, 255, (-(-height // cell), -(-3 * width // cell), 3))
        texture += np.kron(coarse, np.ones((cell, cell, 1)))[:height, : 3 * width] / 3
    return (16 + texture * (220 / 256)).astype(np.uint8)


def make_noise(width=WIDTH, height=HEIGHT):
    """Noise of a sensor, a few times [4, H, W, 3]."""
    return np.random.default_rng(1).integers(0, 12, (4, height, width, 3), dtype=np.uint8)


def draw(texture, noise, number, width=WIDTH):
    """Image [H, W, 3] RGB with its number written as bits."""
    at = round((texture.shape[1] - width) * (0.5 + 0.5 * math.sin(0.01 * number)))
    image = texture[:, at : at + width] + noise[number % len(noise)]
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 if number >> bit & 1 else 0
    return image


def number_in(image):
    """The number in an image's pixels."""
    middle = BLOCK // 2
    return sum(int(image[middle, bit * BLOCK + middle].mean() > 127) << bit for bit in range(BITS))


def environment(domain, profile=True):
    """Environment of a process that uses ROS 2 here."""
    made = os.environ | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(domain)}
    made |= {"OMP_NUM_THREADS": "1"}
    if profile:
        made["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(PROFILE)
    return made


class Rig:
    """Publishers of a camera and of joint states."""

    def __init__(self, node, arguments):
        from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CameraInfo, Image, JointState

        policy = ReliabilityPolicy.BEST_EFFORT if arguments.best_effort else ReliabilityPolicy.RELIABLE
        qos = QoSProfile(depth=30, history=HistoryPolicy.KEEP_LAST, reliability=policy)
        self.arguments, self.kinds = arguments, (Image, CameraInfo, JointState)
        self.images = node.create_publisher(Image, "camera/image_raw", qos)
        self.infos = node.create_publisher(CameraInfo, "camera/camera_info", qos)
        self.joints = node.create_publisher(JointState, "joint_states", 100)
        self.ended = threading.Event()

    def publish_info(self, stamp_s):
        if not self.arguments.no_info:
            info = self.kinds[1](width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5, k=list(K))
            self.infos.publish(stamped(info, stamp_s))

    def move(self):
        """Publish joint states until it is ended."""
        due = time.time()
        while not self.ended.is_set():
            due += 1.0 / self.arguments.joint_rate
            time.sleep(max(0.0, due - time.time()))
            message = stamped(self.kinds[2](name=list(JOINTS)), time.time())
            # From the stamp as it was written, which has nanoseconds.
            stamp = message.header.stamp
            message.position = joints_at(stamp.sec + 1e-9 * stamp.nanosec).tolist()
            self.joints.publish(message)

    def wait(self):
        """For somebody who listens."""
        deadline = time.monotonic() + self.arguments.wait
        while not self.images.get_subscription_count() and time.monotonic() < deadline:
            self.publish_info(time.time())
            time.sleep(0.05)
        time.sleep(1.0)  # DDS has introduced both sides to each other by then

    def film(self):
        """Publish all images; how late the latest was, s."""
        texture, noise, late = make_texture(), make_noise(), 0.0
        start = time.time()
        for number in range(round(self.arguments.seconds * self.arguments.rate)):
            stamp_s = start + number / self.arguments.rate
            message = stamped(self.kinds[0](height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH), stamp_s)
            message.data.frombytes(draw(texture, noise, number).tobytes())
            time.sleep(max(0.0, stamp_s - time.time()))
            late = max(late, time.time() - stamp_s)
            self.publish_info(stamp_s)
            self.images.publish(message)
        return late


def stamped(message, stamp_s):
    message.header.stamp.sec = int(stamp_s)
    message.header.stamp.nanosec = int((stamp_s - int(stamp_s)) * 1e9)
    return message


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--joint-rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--best-effort", action="store_true")
    parser.add_argument("--no-info", action="store_true")
    parser.add_argument("--no-joints", action="store_true")
    parser.add_argument("--wait", type=float, default=20.0, help="for a subscriber to the images, s")
    arguments = parser.parse_args()

    import rclpy
    from rclpy.duration import Duration

    rclpy.init()
    rig = Rig(rclpy.create_node("camera_rig"), arguments)
    mover = threading.Thread(target=rig.move, daemon=True)
    if not arguments.no_joints:
        mover.start()
    rig.wait()
    late = rig.film()
    rig.images.wait_for_all_acked(Duration(seconds=2.0))
    time.sleep(0.5)
    rig.ended.set()
    if not arguments.no_joints:
        mover.join()
    sys.stdout.write(json.dumps({"published": round(arguments.seconds * arguments.rate), "latest_s": late}) + "\n")
    rclpy.shutdown()


if __name__ == "__main__":
    main()
