"""A task's scripted expert on the simulated SO-101: ten episodes of pushing, no training."""

from sim2real.config import load_config
from sim2real.evaluate.episodes import run
from sim2real.learn.experiment import load_experiment
from sim2real.targets.base import target_for
from sim2real.tasks.expert import ExpertRunner

experiment = load_experiment(load_config("so101_push"))
target = target_for(experiment.robot, experiment.task)


def make_runner(count):
    return ExpertRunner(experiment.spec(), experiment.task, count)


for condition in ("fresh", "heavy"):
    result = run(make_runner, experiment, target, target.variants[0], condition, episodes=10, seed=0)
    low, high = result.ci95
    print(f"{condition}: {result.success:.0%} [{low:.0%} to {high:.0%}], {1e3 * result.final_error_m:.0f} mm")
