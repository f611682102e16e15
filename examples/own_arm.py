"""An arm of one's own: a URDF and three lines. Here the KUKA iiwa that comes with PyBullet."""

import tempfile
from pathlib import Path
from shutil import copytree

import pybullet_data

from sim2real.config import validate_config
from sim2real.evaluate.episodes import run
from sim2real.learn.experiment import load_experiment
from sim2real.targets.base import target_for
from sim2real.tasks.expert import ExpertRunner

with tempfile.TemporaryDirectory() as folder:
    arm = Path(folder) / "my_arm"
    copytree(Path(pybullet_data.getDataPath()) / "kuka_iiwa", arm)
    (arm / "robot.yaml").write_text("urdf: model.urdf\nee: lbr_iiwa_link_7\ncontrol_rate_hz: 20\n")
    settings = {"name": "mine", "robot": str(arm), "task": "reach", "method": "nominal", "ppo": {"iterations": 1}}
    experiment = load_experiment(validate_config(settings, "example"))
    target = target_for(experiment.robot, experiment.task)  # made from the same URDF, in MuJoCo
    result = run(
        lambda n: ExpertRunner(experiment.spec(), experiment.task, n),
        experiment,
        target,
        target.variants[0],
        "fresh",
        episodes=4,
        seed=0,
    )
print(f"{target.name}: {result.success:.0%} of {result.n} goals, {1e3 * result.final_error_m:.1f} mm")
