"""The randomization audit of a whole experiment: robot, scene and task."""

from __future__ import annotations

import numpy as np

from sim2real.learn.experiment import Experiment
from sim2real.sim.audit import Auditor, AuditRow, Excitation, audit


def auditor_of(experiment: Experiment, does: Excitation | None = None) -> Auditor:
    """Make the auditor of an experiment's robot and scene, with what it does while it is audited."""
    task = experiment.task
    return Auditor(
        experiment.robot,
        task.signals,
        task.error_signal,
        task.goal.size,
        task.scene,
        excitation=does,
        tolerance_m=task.tolerance_m,
    )


def audit_experiment(experiment: Experiment) -> list[AuditRow]:
    """Audit every randomization term of an experiment, strongest first.

    Terms that hardly show while every command waves are tried again while the task's expert is at work: those of an
    object show only where it is touched. What they do there counts where it is more.
    """
    rows = audit(experiment.terms, auditor_of(experiment))
    silent = {row.term: experiment.terms[row.term] for row in rows if not row.matters}
    does = expert_excitation(experiment) if silent else None
    if does is not None:
        again = {row.term: row for row in audit(silent, auditor_of(experiment, does))}
        rows = [max(row, again.get(row.term, row), key=lambda row: (row.matters, row.effect)) for row in rows]
    return sorted(rows, key=lambda row: -row.effect)


def expert_excitation(experiment: Experiment, robots: int = 8) -> Excitation | None:
    """Record what the task's expert does on the nominal robot; None for a task without one."""
    task = experiment.task
    if task.expert is None:
        return None
    env = experiment.nominal().make_env(0, robots, restart=False)
    start = task.start(np.random.default_rng(0), robots)
    env.reset(start=start)
    commands = []
    for _ in range(env.episode_steps):
        env.step(np.asarray(task.expert(env.signals), dtype=np.float32))
        commands.append(env.command.copy())
    env.sim.close()
    return Excitation(start, env.goal.copy(), np.array(commands))
