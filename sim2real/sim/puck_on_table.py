"""A table around an arm's base, and a round object on it to push."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from sim2real.robots.delays import LateReading
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.sim.tables import Tables
from sim2real.sim.world import World
from sim2real.types import Array, EnvIds, State

_FILE = yaml.safe_load((Path(__file__).parent / "puck_on_table.yaml").read_text())
_SIGHT = 3  # random stream


class PuckOnTable:
    """The scene of pushing, see :class:`sim2real.sim.scene.Scene`.

    Args:
        reach_m: The arm's, m.

    Attributes:
        height_m: Of the object.
    """

    name = "puck"
    position = "object_pos"

    def __init__(self, reach_m: float) -> None:
        self._reach_m = reach_m
        self.height_m = float(_FILE["object_height_m"])
        self.parameters = {n: PhysicsParameter.model_validate(p) for n, p in _FILE["parameters"].items()}
        self.randomization = {n: RandomizationTerm.model_validate(t) for n, t in _FILE["randomization"].items()}

    def nominal_state(self, count: int) -> State:
        """Make objects in reach, at rest."""
        place = np.zeros((count, 3))
        place[:, 0] = 0.55 * self._reach_m
        place[:, 2] = 0.5 * self.height_m
        return {"object_pos": place, "object_vel": np.zeros((count, 3))}

    def build(self, world: World, params: PhysicsParams, decimation: int, seed: int) -> TablesWithPucks:
        """Put a table and an object before every arm of ``world``."""
        return TablesWithPucks(world, params, decimation, seed, self.height_m)


class TablesWithPucks:
    """Tables and objects of one world; what a camera says of the objects is late and noisy.

    Attributes:
        state: ``object_pos`` [N, 3] m in the base frame, ``object_vel`` [N, 3] m/s.
    """

    def __init__(self, world: World, params: PhysicsParams, decimation: int, seed: int, height_m: float) -> None:
        self._params, self._height_m = params, height_m
        self._tables = Tables(world, 0.5 * height_m)
        self._sight = np.random.default_rng([seed, _SIGHT])
        longest = params.table["object_delay"].high
        self._seen = LateReading(world.count, 3, world.sim_dt * decimation, longest)
        self.state: dict[str, Array] = {
            "object_pos": np.zeros((world.count, 3)),
            "object_vel": np.zeros((world.count, 3)),
        }

    def reset(self, env_ids: EnvIds, state: State) -> None:
        """Put objects down on their tables, whatever the height of these."""
        p = self._params.rows(env_ids)
        place = state["object_pos"].copy()
        place[:, 2] = p["table_height"] + 0.5 * self._height_m
        self._tables.write_tables(env_ids, p["table_height"])
        self._tables.write_objects(
            env_ids, place, p["object_radius"], p["object_mass"], p["object_friction"], p["object_damping"]
        )
        self.state["object_pos"][env_ids], self.state["object_vel"][env_ids] = place, 0.0
        self._seen.reset(env_ids, place)

    def end_period(self) -> None:
        """Read where the objects are."""
        place, velocity = self._tables.read_objects()
        self.state = {"object_pos": place, "object_vel": velocity}
        self._seen.push(place)

    def measured(self) -> State:
        """Read the objects as a camera reports them."""
        seen = self._seen.read(self._params["object_delay"])
        seen = seen + self._sight.standard_normal(seen.shape) * self._params["object_noise"][:, None]
        return {"object_pos": seen, "object_vel": self.state["object_vel"]}
