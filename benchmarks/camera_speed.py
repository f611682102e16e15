"""Images a second of the randomized camera, on one core, next to panda-gym's renderer at the same size.

    pip install panda-gym
    python benchmarks/camera_speed.py [--json OUT] [--memory 100000]

Everything is on: lens, textures, colours, light, shadows, camera pose, zoom, up to ten distractors; a new look for
every image. panda-gym draws its scene as it is. ``--memory`` draws so many images more and prints how memory grows.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import numpy as np

from sim2real.provenance import made as facts
from sim2real.robots import load_robot
from sim2real.runtime.camera import CameraCalibration
from sim2real.sim.render.drawing import add_object, move_object
from sim2real.sim.render.preview import EYE_M, FOCAL, TARGET_M, looking
from sim2real.sim.render.scenery import Scenery
from sim2real.sim.world import World

ROUNDS, SECONDS = 5, 2.0


def ours(size: int):
    world = World(1, 0.01)
    world.load_robots(load_robot("so101").urdf, fixed_base=True)
    thing = add_object(world, "cylinder", 0.028, 0.04)
    move_object(world, thing, np.array([0.3, 0.08, 0.02]))
    matrix = np.array([[FOCAL * size, 0, 0.5 * (size - 1)], [0, FOCAL * size, 0.5 * (size - 1)], [0, 0, 1.0]])
    camera = CameraCalibration(size, size, matrix, "pinhole", np.array([-0.1, 0.01, 0.0, 0.0, 0.0]))
    scenery = Scenery(world, camera, looking(np.array(EYE_M), np.array(TARGET_M)), objects=[thing])

    def draw() -> None:
        scenery.look()
        scenery.render()

    return draw


def panda_gym(size: int):
    import gymnasium
    import panda_gym as _registers  # noqa: F401

    env = gymnasium.make(
        "PandaReach-v3", render_mode="rgb_array", renderer="Tiny", render_width=size, render_height=size
    )
    env.reset(seed=0)
    return env.render


def rate(draw) -> float:
    """Images in a second of processor time: what one core does, whatever else the machine is doing."""
    count, began = 0, time.process_time()
    while time.process_time() - began < SECONDS:
        draw()
        count += 1
    return count / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", type=int, default=0)
    given = parser.parse_args()
    draws = {f"sim2real, {size} px": ours(size) for size in (64, 128)}
    try:
        draws |= {f"panda-gym, {size} px": panda_gym(size) for size in (64, 128)}
    except ImportError:
        print("panda-gym is not installed")
    rates = {name: [] for name in draws}
    for _ in range(ROUNDS):
        for name, draw in draws.items():
            rates[name].append(rate(draw))
    result = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    for name, value in result.items():
        print(f"{name:20s} {value:8.1f} images/s")
    if given.memory:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        draw = draws["sim2real, 64 px"]
        for _ in range(given.memory):
            draw()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        result["memory_growth_mib"] = round(grown, 2)
        print(f"memory grew by {grown:.2f} MiB over {given.memory} images")
    if given.json:
        given.json.write_text(json.dumps({"made": facts(), "images_per_s": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
