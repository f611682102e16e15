"""Is this computer ready to train, to run the demo and to talk to a robot?

Every check looks at one thing, changes nothing, and carries the step that mends it. What only one purpose
needs (a Crazyradio, colcon) never fails.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

PACKAGE = "sim2real"
SUBPROCESS_TIMEOUT_S = 20.0
TIMER_HZ = 50.0
TIMER_CYCLES = 100
MAX_JITTER_S = 0.005  # a quarter of a 50 Hz control period
MIN_DISK_GB = 2.0
MIN_MEMORY_GB = 2.0
# https://docs.ros.org/en/jazzy/Concepts/Intermediate/About-Domain-ID.html: above 101, Linux' ephemeral ports collide.
MAX_DOMAIN_ID = 101
DISCOVERY_RANGES = ("OFF", "LOCALHOST", "SUBNET", "SYSTEM_DEFAULT")
CRAZYRADIO_USB = (("1915", "7777"), ("0483", "5740"))  # Crazyradio, and a Crazyflie on its own USB cable
INSTALL_STEP = "run `make venv` in the project's folder, then use .venv/bin/sim2real"
ROS_STEP = "source /opt/ros/jazzy/setup.bash, or on x86-64 Linux, in the project's folder: pip install -e '.[ros]'"

_NODE = """
import rclpy
rclpy.init()
node = rclpy.create_node("sim2real_doctor")
print(rclpy.get_rmw_implementation_identifier())
node.destroy_node()
rclpy.shutdown()
"""
_BULLET = """
import pybullet
client = pybullet.connect(pybullet.DIRECT)
assert client >= 0, "no physics client"
pybullet.stepSimulation(client)
print(pybullet.getAPIVersion(client))
"""
_TORCH = """
import torch
gpu = torch.cuda.is_available()
print(torch.__version__, "on", torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads")
"""


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was looked at.
        ok: False if something has to be mended before this computer can be relied on.
        detail: What was found.
        fix: The command or step that mends it; empty when there is nothing to do.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""


def run_checks() -> list[Check]:
    """Run every check, in a few seconds. Nothing is changed, no robot is contacted, no network is used."""
    return [check() for check in CHECKS]


def check_python() -> Check:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = (3, 11) <= sys.version_info < (3, 14)
    return Check("Python", ok, f"{version} at {sys.executable}", "" if ok else "install Python 3.11, 3.12 or 3.13")


def check_packages() -> Check:
    """Installed packages against the lowest versions that this package asks for."""
    try:
        needed = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return Check("packages", False, f"{PACKAGE} is not installed, only imported from its folder", INSTALL_STEP)
    problems, found = compare_versions(needed)
    if problems:
        return Check("packages", False, "; ".join(problems), INSTALL_STEP)
    return Check("packages", True, f"{found} packages are recent enough")


def compare_versions(needed: list[str]) -> tuple[list[str], int]:
    """Compare requirements with what is installed.

    A package of an extra may be missing (a robot has no torch); if present, its version must fit.

    Args:
        needed: Requirements as in a package's metadata.

    Returns:
        What does not fit, in words, and the number of packages that do.
    """
    problems, found = [], 0
    for text in needed:
        requirement = Requirement(text)
        extra = requirement.marker is not None and "extra" in str(requirement.marker)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if not extra:
                problems.append(f"{requirement.name} is missing")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            found += 1
        else:
            problems.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
    return problems, found


def check_torch() -> Check:
    """Torch and the device it will train on. Not needed on a robot."""
    if importlib.util.find_spec("torch") is None:
        return Check("torch", True, "not installed; needed to train, not on a robot", INSTALL_STEP)
    ok, text = run_python(_TORCH)
    if not ok:
        return Check("torch", False, text, "pip install --force-reinstall -c constraints.txt torch")
    return Check("torch", True, text)


def check_pybullet() -> Check:
    """PyBullet opens a physics client without a display. Not needed on a robot."""
    if importlib.util.find_spec("pybullet") is None:
        return Check("pybullet", True, "not installed; needed to train, not on a robot", INSTALL_STEP)
    ok, text = run_python(_BULLET)
    if not ok:
        return Check("pybullet", False, text, "pip install --force-reinstall -c constraints.txt pybullet")
    return Check("pybullet", True, f"physics client opens without a display (API {text})")


def check_ros() -> Check:
    """Rclpy can be imported and makes a node, with discovery kept on this computer."""
    if importlib.util.find_spec("rclpy") is None:
        return Check("ROS 2", False, "rclpy cannot be imported", ROS_STEP)
    ok, text = run_python(_NODE, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"})
    if not ok:
        return Check("ROS 2", False, f"no node: {text}", "unset RMW_IMPLEMENTATION and FASTRTPS_DEFAULT_PROFILES_FILE")
    return Check("ROS 2", True, f"a node starts ({text})")


def check_discovery() -> Check:
    """Find out who on the network can see this computer's nodes."""
    value = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if value and value not in DISCOVERY_RANGES:
        detail = f"ROS_AUTOMATIC_DISCOVERY_RANGE={value} is none of {', '.join(DISCOVERY_RANGES)}"
        return Check("ROS 2 discovery", False, detail, "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST")
    if value in ("OFF", "LOCALHOST"):
        return Check("ROS 2 discovery", True, f"{value}: nodes are seen on this computer only")
    return Check(
        "ROS 2 discovery",
        True,
        f"{value or 'not set'}: any computer on the network can send commands",
        "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST unless the robot is another computer",
    )


def check_domain() -> Check:
    """The ROS 2 domain is a number that leaves Linux' own ports alone."""
    value = os.environ.get("ROS_DOMAIN_ID") or "0"
    ok = value.isdecimal() and int(value) <= MAX_DOMAIN_ID
    fix = "" if ok else f"export ROS_DOMAIN_ID=0, or any number up to {MAX_DOMAIN_ID}"
    return Check("ROS 2 domain", ok, f"ROS_DOMAIN_ID is {value}", fix)


def check_disk() -> Check:
    """Room for runs and bundles where this command was started."""
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    ok = free_gb >= MIN_DISK_GB
    fix = "" if ok else f"free at least {MIN_DISK_GB:g} GB, for example with: rm -r runs/"
    return Check("disk", ok, f"{free_gb:.1f} GB free in {Path.cwd()}", fix)


def check_cores() -> Check:
    """Cores this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    fix = "" if count > 1 else "set sim.workers=1; training will take about twice as long"
    return Check("cores", True, str(count), fix)


def check_memory() -> Check:
    """Memory that programs can still get."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available_gb = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024 / 1e9
    except (OSError, StopIteration, ValueError):
        return Check("memory", True, "unknown on this system")
    ok = available_gb >= MIN_MEMORY_GB
    fix = "" if ok else f"close programs until {MIN_MEMORY_GB:g} GB are available, or set sim.workers=1"
    return Check("memory", ok, f"{available_gb:.1f} GB available", fix)


def check_display() -> Check:
    """Look for a display; none is needed."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return Check("display", True, f"{display or 'none'}; not needed, pictures are rendered in software")


def check_clock() -> Check:
    """Resolution of the clocks, and whether the system's time is kept synchronised."""
    monotonic = time.get_clock_info("monotonic")
    detail = f"monotonic clock resolves {monotonic.resolution * 1e9:.0f} ns"
    if monotonic.resolution > 1e-4:
        return Check("clock", False, detail, "use a system with high-resolution timers (CONFIG_HIGH_RES_TIMERS)")
    synchronised = _output(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if synchronised == "no":
        # Stamps are compared between computers: a robot's late data must not look fresh.
        return Check("clock", True, f"{detail}; not synchronised", "sudo timedatectl set-ntp true, on the robot too")
    return Check("clock", True, f"{detail}; {'synchronised' if synchronised == 'yes' else 'synchronisation unknown'}")


def check_timer() -> Check:
    """Measure how punctually this computer wakes a 50 Hz control loop."""
    late = measure_lateness(TIMER_HZ, TIMER_CYCLES)
    p99, worst = float(np.percentile(late, 99)), float(late.max())
    ok = p99 <= MAX_JITTER_S
    fix = (
        ""
        if ok
        else "stop other programs, or: sudo chrt -f 50 sim2real ...; sudo cpupower frequency-set -g performance"
    )
    detail = (
        f"{TIMER_CYCLES} cycles at {TIMER_HZ:g} Hz: late by {p99 * 1e3:.2f} ms (p99), {worst * 1e3:.2f} ms at worst"
    )
    return Check("timer", ok, detail, fix)


def measure_lateness(rate_hz: float, cycles: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Sleep to absolute deadlines.

    Args:
        rate_hz: Rate of the deadlines.
        cycles: Number of deadlines.

    Returns:
        How late each wake-up was, [cycles] s.
    """
    late = np.zeros(cycles)
    start = time.perf_counter()
    for cycle in range(cycles):
        deadline = start + (cycle + 1) / rate_hz
        time.sleep(max(0.0, deadline - time.perf_counter()))
        late[cycle] = time.perf_counter() - deadline
    return late


def check_radio(devices: Path = Path("/sys/bus/usb/devices")) -> Check:
    """Crazyradio: plugged in, and open to this user. For information only."""
    for device in sorted(devices.glob("*/idVendor")):
        usb = (device.read_text().strip(), (device.parent / "idProduct").read_text().strip())
        if usb not in CRAZYRADIO_USB:
            continue
        bus, number = ((device.parent / part).read_text().strip() for part in ("busnum", "devnum"))
        node = Path(f"/dev/bus/usb/{int(bus):03d}/{int(number):03d}")
        if os.access(node, os.W_OK):
            return Check("Crazyradio", True, f"{':'.join(usb)} at {node}, open to this user")
        rules = "\n".join(
            f'SUBSYSTEM=="usb", ATTRS{{idVendor}}=="{vendor}", ATTRS{{idProduct}}=="{product}", MODE="0664", '
            'GROUP="plugdev"'
            for vendor, product in CRAZYRADIO_USB
        )
        fix = (
            f"put into /etc/udev/rules.d/99-crazyradio.rules:\n{rules}\n"
            "then: sudo usermod -aG plugdev $USER && sudo udevadm control --reload-rules && sudo udevadm trigger, "
            "and log in again"
        )
        return Check("Crazyradio", True, f"{':'.join(usb)} at {node}, closed to this user", fix)
    return Check("Crazyradio", True, "none plugged in; needed only to fly a Crazyflie")


def check_colcon() -> Check:
    """Colcon, which builds ROS 2 packages. Not needed to run from Python."""
    found = shutil.which("colcon")
    fix = (
        ""
        if found
        else "sudo apt-get install python3-colcon-common-extensions, or: pip install colcon-common-extensions"
    )
    return Check("colcon", True, found or "not installed; needed only to build ROS 2 packages", fix)


def run_python(code: str, environment: Mapping[str, str] | None = None) -> tuple[bool, str]:
    """Run code in a fresh interpreter, so that neither a crash nor a hang reaches this one.

    Args:
        code: Python source.
        environment: Variables set on top of the present ones.

    Returns:
        Whether it succeeded, and the last line it printed (its error's if it failed).
    """
    try:
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=SUBPROCESS_TIMEOUT_S,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {SUBPROCESS_TIMEOUT_S:g} s"
    ok = result.returncode == 0
    lines = (result.stdout if ok else result.stderr).strip().splitlines()
    return ok, lines[-1] if lines else ("" if ok else f"exit status {result.returncode}")


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


CHECKS: tuple[Callable[[], Check], ...] = (
    check_python,
    check_packages,
    check_torch,
    check_pybullet,
    check_ros,
    check_discovery,
    check_domain,
    check_disk,
    check_cores,
    check_memory,
    check_display,
    check_clock,
    check_timer,
    check_radio,
    check_colcon,
)
