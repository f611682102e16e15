"""A method of one's own: random force injection (Valassakis et al. 2020), the baseline nobody ships.

The physics stays nominal; in every physics step a random force pushes the robot's base.
"""

from dataclasses import replace

import numpy as np
from pydantic import Field

from sim2real.methods.base import PolicyMethod
from sim2real.types import Model


class RfiSettings(Model):
    """Settings of the method.

    Attributes:
        force_n: Standard deviation of the force on each axis, N.
    """

    force_n: float = Field(default=0.02, ge=0)


class Pushed:
    """A robot whose base is pushed; everything else is the robot's own."""

    def __init__(self, robot, force_n):
        self._robot, self._force_n = robot, force_n

    def __getattr__(self, name):
        if name.startswith("__") or name == "_robot":  # asked by pickle, before there is a robot
            raise AttributeError(name)
        return getattr(self._robot, name)

    def body(self, world, params, decimation, seed):
        body = self._robot.body(world, params, decimation, seed)
        rng, before, still = np.random.default_rng([seed, 23]), body.before_step, np.zeros((world.count, 3))

        def push(index):
            before(index)
            world.apply_wrench(self._force_n * rng.standard_normal(still.shape), still)

        body.before_step = push
        return body


class RandomForceInjection(PolicyMethod):
    """PPO on nominal physics with random forces."""

    Settings = RfiSettings

    def check(self, experiment):
        pass  # it needs no randomization

    def prepare(self, experiment):
        return replace(experiment, robot=Pushed(experiment.robot, self.settings.force_n))

    def off(self):
        return RandomForceInjection(RfiSettings(force_n=0.0))
