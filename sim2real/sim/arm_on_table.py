"""An arm at a table with an object to push: contact, and what the object adds to the physics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from sim2real.robots.arm import Arm
from sim2real.robots.physics import PhysicsParameter
from sim2real.runtime.pushing import push_signal_specs, push_signals
from sim2real.sim.arm_sim import ArmSim, ArmState
from sim2real.sim.randomization import RandomizationTerm
from sim2real.types import Array, EnvIds

_TABLE = yaml.safe_load((Path(__file__).parent / "table.yaml").read_text())


@dataclass(frozen=True)
class TableState(ArmState):
    """State of N arms and their objects.

    Attributes:
        object_pos: Centre of the object, [N, 3] m in the base frame.
        object_vel: [N, 3] m/s.
    """

    object_pos: Array
    object_vel: Array


class ArmOnTable(Arm):
    """An arm with a table around its base and a round object on it.

    Args:
        folder, identified: As of :class:`sim2real.robots.arm.Arm`.
    """

    position_signal = "object_error"

    def __init__(self, folder: Path, identified: Path | None = None) -> None:
        super().__init__(folder, identified)
        self.parameters |= {n: PhysicsParameter.model_validate(p) for n, p in _TABLE["parameters"].items()}
        self.randomization |= {n: RandomizationTerm.model_validate(t) for n, t in _TABLE["randomization"].items()}
        self.signals = {signal.name: signal for signal in push_signal_specs(self.joints)}
        self._name_identified()

    def position(self, state: TableState) -> Array:  # type: ignore[override]
        """Of the object, base frame [N, 3] m."""
        return state.object_pos

    def nominal_state(self, count: int) -> TableState:
        """At rest in its rest pose, the object in reach."""
        state = super().nominal_state(count)
        place = np.zeros((count, 3))
        place[:, 0] = 0.55 * self.reach_m
        place[:, 2] = 0.5 * self.object_height()
        return TableState(state.joint_pos, state.joint_vel, state.ee_pos, place, np.zeros((count, 3)))

    def object_height(self) -> float:
        """Of the object, m."""
        return float(_TABLE["object_height_m"])

    def measure(self, state: TableState, goal: Array) -> dict[str, Array]:  # type: ignore[override]
        """Signals [N, d] relative to ``goal`` [N, 3] m, base frame: :func:`sim2real.runtime.pushing.push_signals`."""
        return push_signals(self.chain, self.ee, state.joint_pos, state.joint_vel, state.object_pos, goal)

    def simulator(
        self, count: int, terms: Mapping[str, RandomizationTerm], decimation: int = 2, seed: int = 0
    ) -> ArmOnTableSim:
        """``count`` simulated arms, each at a table of its own."""
        return ArmOnTableSim(self, count, terms, decimation, seed)


class ArmOnTableSim(ArmSim):
    """N simulated arms, each at a table with an object; see :class:`sim2real.sim.arm_sim.ArmSim`."""

    model: ArmOnTable
    state: TableState

    def __init__(
        self, model: ArmOnTable, count: int, terms: Mapping[str, RandomizationTerm], decimation: int, seed: int
    ) -> None:
        super().__init__(model, count, terms, decimation, seed)
        self.world.add_tables(0.5 * model.object_height())
        empty = np.zeros((count, 3))
        self.state = TableState(self.state.joint_pos, self.state.joint_vel, self.state.ee_pos, empty, empty.copy())
        steps = int(np.ceil(model.parameters["object_delay"].high / self.control_dt)) + 2
        self._seen = np.zeros((count, steps, 3))
        self._sight = np.random.default_rng([seed, 3])

    def reset(self, rows: EnvIds, state: TableState, command: Array, params: Array | None = None) -> None:  # type: ignore[override]
        """Start arms anew; see :meth:`ArmSim.reset`. Objects are put down on their table, whatever their height."""
        super().reset(rows, state, command, params)
        p = self.params.rows(rows)
        place = state.object_pos.copy()
        place[:, 2] = p["table_height"] + 0.5 * self.model.object_height()
        self.world.write_tables(rows, p["table_height"])
        self.world.write_objects(
            rows, place, p["object_radius"], p["object_mass"], p["object_friction"], p["object_damping"]
        )
        self.state.object_pos[rows], self.state.object_vel[rows] = place, 0.0
        self._seen[rows] = place[:, None, :]

    def step(self, command: Array) -> None:
        """As :meth:`ArmSim.step`."""
        super().step(command)
        place, velocity = self.world.read_objects()
        arm = self.state
        self.state = TableState(arm.joint_pos, arm.joint_vel, arm.ee_pos, place, velocity)
        self._seen[:, 1:] = self._seen[:, :-1]
        self._seen[:, 0] = place

    def estimate(self) -> TableState:
        """As encoders and a camera report it."""
        arm = super().estimate()
        steps = self.params["object_delay"] / self.control_dt
        index = steps.astype(np.int64)
        late = (steps - index)[:, None]
        seen = (1.0 - late) * self._seen[self._rows, index] + late * self._seen[self._rows, index + 1]
        seen = seen + self._sight.standard_normal(seen.shape) * self.params["object_noise"][:, None]
        return TableState(arm.joint_pos, arm.joint_vel, arm.ee_pos, seen, self.state.object_vel)
