"""The ablations of Tobin et al. 2017 on the target: what of visual randomization a localizer needs.

    python benchmarks/tobin.py WORK [--rows full no_distractors ...] [--seeds 0 1 2] [--json OUT]

Every row is a training of its own on reduced settings (see ``SMALL``), the same number of steps each, and is measured
on the same photographs of the MuJoCo target with distractors and partial occlusion. WORK keeps the runs: what is
finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

from sim2real.config import read_settings, validate
from sim2real.evaluate.localization import localization_figures, locate_all
from sim2real.evaluate.target_images import write_target_dataset
from sim2real.files import write_text
from sim2real.images.dataset import read_dataset
from sim2real.perceive.config import LocalizeConfig
from sim2real.perceive.train import train
from sim2real.provenance import made as facts
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm
from sim2real.runtime.camera import load_camera
from sim2real.runtime.perception import PerceptionBundle

IMAGES, EPOCHS, HELD_OUT, TARGET_IMAGES = 4000, 8, 400, 300
SMALL = (
    f"render.images={IMAGES}",
    f"render.held_out={HELD_OUT}",
    f"localizer.epochs={EPOCHS}",
    "localizer.augment=[exposure, white_red, white_blue, blur, noise]",
)
CAMERA = "camera_x, camera_y, camera_z, camera_pitch, camera_yaw, camera_roll, zoom"
ROWS = {
    "full": (),
    "no_distractors": ("render.without=[distractors, distractor_size, distractor_alike, obstruction]",),
    "no_camera": (f"render.without=[{CAMERA}]",),
    "textures_4": ("render.textures=4",),
    "images_quarter": (f"render.images={IMAGES // 4}", f"localizer.epochs={4 * EPOCHS}"),
    "nothing": ("render.randomize=[]", "localizer.augment=[]"),
}


def quiet(*_) -> None:
    pass


def measure(row: str, seed: int, work: Path, photographs) -> dict:
    """Train a row and measure it; the newest result is kept in its folder."""
    folder = work / f"{row}_{seed}"
    result = folder / "target.json"
    if result.is_file():
        return json.loads(result.read_text())
    settings = (*SMALL, *ROWS[row], f"seed={seed}", f"name={row}")
    config = validate(LocalizeConfig, *read_settings("so101_localize", settings))
    began = time.perf_counter()
    bundle = train(config, folder, quiet)
    if bundle is None:
        raise KeyboardInterrupt
    answers = locate_all(PerceptionBundle.load(bundle).locator(), photographs)
    figures = localization_figures(*answers, photographs.column("visible"))
    held_out = json.loads((folder / "history.json").read_text())["held_out"]
    figures |= {"held_out_renders_m": held_out["mean_error_m"], "took_s": time.perf_counter() - began}
    write_text(result, json.dumps(figures, indent=1))
    shutil.rmtree(folder / "images")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    arm = Arm(robot_folder("so101"))
    camera = load_camera(robot_folder("so101") / "camera.yaml")
    write_target_dataset(given.work / "test", camera, arm.chain, arm.ee, TARGET_IMAGES, "test", quiet)
    photographs = read_dataset(given.work / "test")
    rows: dict[str, dict] = {}
    for seed in given.seeds:  # a seed of all rows first, so that a stopped run compares like with like
        for row in given.rows:
            figures = measure(row, seed, given.work, photographs)
            rows.setdefault(row, {})[str(seed)] = figures
            print(
                f"{row:16s} seed {seed}: target {1e3 * figures['mean_error_m']:5.1f} mm mean, "
                f"{1e3 * figures['median_error_m']:5.1f} median; held-out renders "
                f"{1e3 * figures['held_out_renders_m']:5.1f}; {figures['took_s']:.0f} s",
                flush=True,
            )
    print(f"\n{'row':16s} {'mean':>7s} {'median':>7s} {'of full':>8s}   mm, mean over {len(given.seeds)} seeds")
    means = {row: statistics.mean(f["mean_error_m"] for f in seeds.values()) for row, seeds in rows.items()}
    for row, seeds in rows.items():
        median = statistics.mean(f["median_error_m"] for f in seeds.values())
        share = f"{means[row] / means['full']:.2f}" if "full" in means else ""
        print(f"{row:16s} {1e3 * means[row]:7.1f} {1e3 * median:7.1f} {share:>8s}")
    if given.json:
        made = {"made": facts(), "settings": SMALL, "target_images": TARGET_IMAGES, "rows": rows}
        write_text(given.json, json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
