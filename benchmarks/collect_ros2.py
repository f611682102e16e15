"""Does the collector keep every image of a camera at full rate, over real ROS 2, and what does it cost?

    python benchmarks/collect_ros2.py --seconds 60 --json benchmarks/results/collect_ros2.json

A camera (640 x 480 RGB at 30 Hz) and a robot (joint states at 100 Hz) are one process, `sim2real collect live --all` is
another, on one computer. Every image carries its number in its pixels and every joint position follows from its stamp,
so that each of the written frames is checked: none missing, none twice, right image, right joints. First as the README
says (reliable, with launch/fastdds_images.xml), then without the profile, then with best effort and without it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from camera_rig import environment, joints_at, number_in  # noqa: E402 (beside the tests, not a package)

from sim2real.images.dataset import read_dataset  # noqa: E402
from sim2real.provenance import commit  # noqa: E402

RATE_HZ = 30.0
CASES = {
    "reliable, with the profile": ([], True),
    "reliable, without the profile": ([], False),
    "best effort, without the profile": (["--best-effort"], False),
}


def run(folder: Path, seconds: float, rig_options: list[str], profile: bool, domain: int) -> dict[str, object]:
    out, figures = folder / "dataset", folder / "figures.json"
    env = environment(domain, profile)
    command = [sys.executable, "-m", "sim2real", "collect", "live", str(out), "--all", "--wait", "60"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "log").open("w") as log:
        collect = subprocess.Popen([*command, "--json", str(figures)], env=env, cwd=ROOT, stdout=log, stderr=log)
        rig = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "camera_rig.py"), "--seconds", str(seconds), "--rate", str(RATE_HZ),
             "--wait", "60", *rig_options],
            env=env, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        told, _ = rig.communicate(timeout=seconds + 120)
        middle = resource.getrusage(resource.RUSAGE_CHILDREN)
        collect.send_signal(signal.SIGINT)
        code = collect.wait(timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise SystemExit((folder / "log").read_text())
    camera, saved = json.loads(told), json.loads(figures.read_text())
    dataset = read_dataset(out)
    numbers, errors = [], []
    for index in range(len(dataset)):
        one = type(dataset)(dataset.folder, dataset.frames[index : index + 1])
        numbers.append(number_in(one.images[0]))
        frame = dataset.frames[index]
        errors.append(float(np.abs(np.array(frame["joint_pos"]) - joints_at(frame["stamp_s"])).max()))
    stamps = dataset.column("stamp_s")
    in_place = np.abs((stamps - stamps[0]) - (np.array(numbers) - numbers[0]) / RATE_HZ).max()
    return {
        "published": camera["published"],
        "camera_latest_ms": 1e3 * camera["latest_s"],
        "arrived": saved["images_seen"],
        "kept": saved["kept"],
        "lost": camera["published"] - len(set(numbers)),
        "twice": len(numbers) - len(set(numbers)),
        "drops": saved["drops"],
        "image_and_stamp_apart_s": float(in_place),
        "largest_joint_error_rad": max(errors),
        "nearest_joint_state_ms": 1e3 * float(dataset.column("state_gap_s").max()),
        "dataset_mb": sum(file.stat().st_size for file in (out / "images").iterdir()) / 1e6,
        "collector_cpu_s": after.ru_utime + after.ru_stime - middle.ru_utime - middle.ru_stime,
        "camera_cpu_s": middle.ru_utime + middle.ru_stime - before.ru_utime - before.ru_stime,
        "largest_process_mb": after.ru_maxrss / 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only-first", action="store_true", help="Only as the README says.")
    arguments = parser.parse_args()
    cases = dict(list(CASES.items())[:1]) if arguments.only_first else CASES
    results = {}
    for number, (name, (options, profile)) in enumerate(cases.items()):
        with tempfile.TemporaryDirectory() as folder:
            domain = 1 + (os.getpid() + number) % 100
            results[name] = run(Path(folder), arguments.seconds, options, profile, domain)
        print(name, json.dumps(results[name], indent=2))
    report = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, camera and collector on the same machine",
        "seconds": arguments.seconds,
        "image": "640 x 480 RGB, 30 Hz",
        "cases": results,
    }
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    first = next(iter(results.values()))
    if first["lost"] or first["drops"]:
        raise SystemExit("images were lost")


if __name__ == "__main__":
    main()
