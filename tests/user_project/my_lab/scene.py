"""A scene of one's own: a table with a box on it, of a size that varies."""

import numpy as np

from sim2real.robots.physics import PhysicsParameter
from sim2real.robots.terms import RandomizationTerm
from sim2real.sim.tables import Tables

HALF_M = 0.02


class BoxOnTable:
    """A box that lies on a table before the arm."""

    name = "box"
    position = "object_pos"

    def __init__(self):
        self.parameters = {"box_noise": PhysicsParameter(unit="m", nominal=0.001, low=0.0, high=0.01)}
        noise = {"distribution": "uniform", "range": (0.0, 0.004), "reason": "a detector in a camera image"}
        self.randomization = {"box_noise": RandomizationTerm(operation="set", **noise)}

    def nominal_state(self, count):
        place = np.tile([0.25, 0.0, HALF_M], (count, 1))
        return {"object_pos": place, "object_vel": np.zeros((count, 3))}

    def build(self, world, params, decimation, seed):
        return Boxes(world, params, seed)


class Boxes:
    def __init__(self, world, params, seed):
        self._params, self._rng = params, np.random.default_rng([seed, 17])
        self._tables = Tables(world, HALF_M, "box")
        self.state = {"object_pos": np.zeros((world.count, 3)), "object_vel": np.zeros((world.count, 3))}

    def reset(self, env_ids, state):
        n, place = len(env_ids), state["object_pos"]
        self._tables.write_objects(env_ids, place, np.full(n, HALF_M), np.full(n, 0.2), np.full(n, 0.8), np.zeros(n))
        self.state["object_pos"][env_ids], self.state["object_vel"][env_ids] = place, 0.0

    def end_period(self):
        place, velocity = self._tables.read_objects()
        self.state = {"object_pos": place, "object_vel": velocity}

    def measured(self):
        noise = self._params["box_noise"][:, None] * self._rng.standard_normal(self.state["object_pos"].shape)
        return {"object_pos": self.state["object_pos"] + noise, "object_vel": self.state["object_vel"]}
