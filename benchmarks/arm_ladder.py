"""The ladder of Peng et al. 2018 on pushing with an SO-101: which way of bearing unknown physics transfers?

    python benchmarks/arm_ladder.py RUNS [--episodes 100] [--only NAME …] [--seeds 0 1 2]

Every row is trained in RUNS/NAME_SEED and runs on the MuJoCo target in process, with objects outside the training's
ranges. All rows imitate the same expert before PPO; its own row is there too, and the policy of UP-OSI told what is
true of the target in place of what it identified (the oracle).
"""

from pathlib import Path

import numpy as np

from sim2real.evaluate.bench import Row, main
from sim2real.learn.experiment import bundle_experiment
from sim2real.methods import load_method
from sim2real.methods.base import Run
from sim2real.targets.so101 import PUCK_CONDITIONS
from sim2real.targets.so101_arm import read_figures

IDENTIFY = (
    "object_mass, object_friction, object_radius, table_height, delay, shoulder_lift.no_load_speed, "
    "shoulder_lift.gravity_scale, elbow_flex.gravity_scale"
)
UP_OSI = f"method={{name: up_osi, identify: [{IDENTIFY}], rounds: 4, robots: 256, batches_per_round: 1500}}"
ROWS = [
    Row("nominal", "so101_push", ("method=nominal", "randomize=[]")),
    Row("feed_forward", "so101_push"),
    Row("history", "so101_push", ("task={name: push, history: 6}",)),
    Row("lstm", "so101_push", ("ppo.lstm=128",)),
    Row("up_osi", "so101_push", (UP_OSI,)),
    Row("oracle", "so101_push", (UP_OSI,), of="up_osi", runner="arm_ladder:told"),
    Row("expert", "so101_push", runner="expert"),
]
RESULTS = Path(__file__).parent / "results" / "arm_ladder.jsonl"


def told(bundle, variant, condition, count):
    """UP-OSI's policy with the target's own object, table and delays for its estimates.

    The target's servos are of another kind than the simulator's; their quantities are the identified ones.
    """
    target = PUCK_CONDITIONS[condition]
    true = {
        "object_mass": target.puck.mass_kg,
        "object_friction": target.puck.friction,
        "object_radius": target.puck.radius_m,
        "table_height": 0.0,
        "delay": float(read_figures()["dead_time"].mean()) + target.command_delay_s + target.latency_s,
    }
    experiment = bundle_experiment(bundle)
    method = load_method(experiment.config.method)
    terms = method.prepare(experiment).told
    values = np.array([[true.get(term.name, term.nominal) for term in terms]] * count)
    return method.told(experiment, Run(bundle.path.parent, lambda *_: None), values)


if __name__ == "__main__":
    main(ROWS, __doc__ or "", RESULTS, none="nominal", oracle="oracle")
