"""The policy node on the robot's side: does it hold its rate, how fast does it answer, how large is it?

    python benchmarks/robot_side.py runs/demo/up_osi/bundle --seconds 300 --json benchmarks/results/robot_side.json

Driver node (the target, 100 Hz state) and policy node are processes of their own, over real ROS 2. Figures are the
node's own diagnostics: a cycle is late when it begins more than 20 % of its period after it was due; latency is from
the arrival of the state message that a command was computed from to that command's publication.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray

from sim2real.evaluate.over_ros2 import Fleet
from sim2real.provenance import commit

NUMBERS = (
    "cycles",
    "late",
    "jitter_p50_ms",
    "jitter_p99_ms",
    "duration_p50_ms",
    "duration_p99_ms",
    "latency_p50_ms",
    "latency_p99_ms",
    "latency_p999_ms",
    "rss_mb",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variant", default="cf2x_L250")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    newest: dict[str, str] = {}

    def on_diagnostics(message: DiagnosticArray) -> None:
        newest.update({value.key: value.value for value in message.status[0].values})

    with Fleet({"policy": arguments.bundle}, [arguments.variant], real_time=True) as fleet:
        topic = f"/{arguments.variant.lower()}/diagnostics"
        fleet.node.create_subscription(DiagnosticArray, topic, on_diagnostics, 10)
        fleet.launch("policy", "fresh", 0)
        fleet.spin(arguments.seconds)
        figures = {name: float(newest[name]) for name in NUMBERS}
        state, torch_loaded = newest["state"], newest["torch_loaded"]
        fleet.recall("policy")
    report = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, driver and policy node on the same machine",
        "seconds": arguments.seconds,
        "rate_hz": figures["cycles"] / arguments.seconds,
        "late_share": figures["late"] / figures["cycles"],
        "state": state,
        "torch_loaded": torch_loaded,
        **figures,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
