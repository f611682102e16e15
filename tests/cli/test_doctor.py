"""Checks of this computer: each outcome is provoked, none depends on how this computer happens to be."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from sim2real.cli import doctor
from sim2real.cli.doctor import Check


def test_every_check_runs_and_every_failure_says_what_to_do() -> None:
    checks = doctor.run_checks()
    assert len(checks) == len(doctor.CHECKS)
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.detail, check
        assert check.ok or check.fix, check


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, sim2real.cli.doctor; print([m for m in ('torch', 'pybullet', 'rclpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def test_versions_are_compared_with_requirements() -> None:
    numpy = metadata.version("numpy")
    problems, found = doctor.compare_versions(
        [
            "numpy>=1.0",
            "numpy>=1000",
            "no-such-package-of-the-core>=1",
            'no-such-package-of-an-extra>=1; extra == "train"',
            'numpy<1; extra == "train"',
        ]
    )
    assert found == 1
    assert problems == [
        f"numpy is {numpy}, needed is >=1000",
        "no-such-package-of-the-core is missing",
        f"numpy is {numpy}, needed is <1",
    ]


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGE", "no-such-package")
    check = doctor.check_packages()
    assert not check.ok and "make venv" in check.fix


def test_code_runs_elsewhere() -> None:
    assert doctor.run_python("print('first'); print('last')") == (True, "last")
    assert doctor.run_python("import os; print(os.environ['SOME'])", {"SOME": "value"}) == (True, "value")
    assert doctor.run_python("raise ValueError('broken')") == (False, "ValueError: broken")
    assert doctor.run_python("import os; os._exit(3)") == (False, "exit status 3")


def test_hang_does_not_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SUBPROCESS_TIMEOUT_S", 0.5)
    start = time.monotonic()
    assert doctor.run_python("import time; time.sleep(60)") == (False, "no answer within 0.5 s")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("check", [doctor.check_torch, doctor.check_pybullet, doctor.check_ros])
def test_broken_library_is_reported(monkeypatch: pytest.MonkeyPatch, check: object) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor, "run_python", lambda code, environment=None: (False, "ImportError: libx.so.1"))
    result = check()  # type: ignore[operator]
    assert not result.ok and "libx.so.1" in result.detail and result.fix


@pytest.mark.parametrize(
    ("check", "ok"), [(doctor.check_torch, True), (doctor.check_pybullet, True), (doctor.check_ros, False)]
)
def test_missing_library_fails_only_what_a_robot_needs(
    monkeypatch: pytest.MonkeyPatch, check: object, ok: bool
) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    result = check()  # type: ignore[operator]
    assert result.ok is ok and result.fix


@pytest.mark.parametrize(
    ("value", "ok", "words"),
    [
        ("LOCALHOST", True, "this computer only"),
        ("SUBNET", True, "any computer"),
        (None, True, "any computer"),
        ("LOCAL", False, "none of"),
    ],
)
def test_discovery(monkeypatch: pytest.MonkeyPatch, value: str | None, ok: bool, words: str) -> None:
    if value is None:
        monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    else:
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", value)
    check = doctor.check_discovery()
    assert check.ok is ok and words in check.detail
    assert bool(check.fix) is (value != "LOCALHOST")


@pytest.mark.parametrize(("value", "ok"), [("0", True), ("", True), ("101", True), ("102", False), ("lab", False)])
def test_domain(monkeypatch: pytest.MonkeyPatch, value: str, ok: bool) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", value)
    assert doctor.check_domain().ok is ok


def test_full_disk_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_DISK_GB", 1e9)
    monkeypatch.setattr(doctor, "MIN_MEMORY_GB", 1e9)
    assert not doctor.check_disk().ok and doctor.check_disk().fix
    if Path("/proc/meminfo").exists():
        assert not doctor.check_memory().ok and doctor.check_memory().fix


def test_late_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    late = np.zeros(100)
    monkeypatch.setattr(doctor, "measure_lateness", lambda rate_hz, cycles: late)
    assert doctor.check_timer().ok
    late[:5] = 0.02
    check = doctor.check_timer()
    assert not check.ok and "20.00 ms" in check.detail


def test_lateness_is_measured_against_a_fixed_grid() -> None:
    start = time.perf_counter()
    late = doctor.measure_lateness(200.0, 10)
    assert late.shape == (10,) and (late >= 0).all()
    assert time.perf_counter() - start >= 10 / 200.0


def usb_device(folder: Path, vendor: str, product: str) -> None:
    folder.mkdir(parents=True)
    for name, text in {"idVendor": vendor, "idProduct": product, "busnum": "900", "devnum": "7"}.items():
        (folder / name).write_text(f"{text}\n")


def test_radio_without_permission(tmp_path: Path) -> None:
    assert doctor.check_radio(tmp_path).detail.startswith("none plugged in")
    usb_device(tmp_path / "1-1", "1d6b", "0002")  # a hub
    assert doctor.check_radio(tmp_path).detail.startswith("none plugged in")
    usb_device(tmp_path / "1-2", "1915", "7777")
    check = doctor.check_radio(tmp_path)
    assert check.ok  # for information only
    assert "1915:7777 at /dev/bus/usb/900/007" in check.detail
    assert 'ATTRS{idVendor}=="1915", ATTRS{idProduct}=="7777"' in check.fix


def test_radio_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usb_device(tmp_path / "1-2", "0483", "5740")
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: True)
    assert doctor.check_radio(tmp_path) == Check(
        "Crazyradio", True, "0483:5740 at /dev/bus/usb/900/007, open to this user"
    )
