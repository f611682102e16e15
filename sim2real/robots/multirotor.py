"""A drone as a folder describes it: URDF, ``robot.yaml`` with limits, rotors, attitude controller and randomization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim2real.errors import ConfigError
from sim2real.registry import resolve
from sim2real.robots.flight_body import GUSTS, FlightBody, flight_state
from sim2real.robots.identified import IdentifiedQuantity, ParameterValue
from sim2real.robots.multirotor_file import read_multirotor_file
from sim2real.robots.parameters_file import read_document
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.residual import Residual, read_residual
from sim2real.robots.rotors import RotorActuation
from sim2real.robots.terms import RandomizationTerm
from sim2real.robots.weights import GRAVITY
from sim2real.types import Array, State

if TYPE_CHECKING:
    from sim2real.sim.world import World

ATTITUDE = {"second_order": "sim2real.robots.attitude:SecondOrderAttitude"}
_DIRECT = (
    "rotor_time_constant",
    "attitude_bandwidth",
    "attitude_damping",
    "attitude_gain",
    "roll_trim",
    "pitch_trim",
)


class Multirotor:
    """Everything the simulator knows about one kind of drone that takes thrust, roll, pitch and yaw rate.

    Args:
        folder: Holds ``robot.yaml`` and the URDF it names.
        identified: Parameters file of 'sim2real identify'; the residual network it names, if any, joins the physics.

    Attributes:
        residual: That network; None without one.

    Raises:
        ConfigError: A file is missing or wrong; the message says which and where.
    """

    chain = None
    fixed_base = weightless = False
    position = "pos"

    def __init__(self, folder: Path, identified: Path | None = None) -> None:
        data = read_multirotor_file(folder)
        self.folder, self.urdf, self.name, self.spec = folder, folder / data.urdf, data.spec.name, data.spec
        self.parameters, self.randomization = data.parameters, data.randomization
        self.disturbances = data.disturbances
        body = data.body
        self.inertia, self.max_torque = np.array(body.inertia), np.array(body.max_torque)
        self.thrust_reference = body.thrust_reference_n
        self._ranges = {name: data.range_of(name) for name in ("thrust", "roll", "pitch", "yaw_rate")}
        self._attitude = data.attitude
        self.identified = {
            "mass_thrust_ratio": IdentifiedQuantity("kg", self._mass_thrust_ratio),
            "thrust_slope": IdentifiedQuantity("1", self._thrust_slope),
            "delay": IdentifiedQuantity("s", _delay),
            **{name: IdentifiedQuantity(self.parameters[name].unit, ParameterValue(name)) for name in _DIRECT},
            "drag": IdentifiedQuantity("1/s", _drag),
        }
        self.residual = _read_network(identified, self.name) if identified else None

    def action_range(self, command: str) -> tuple[float, float]:
        """Range of a command component that policies use, inside its limits."""
        return self._ranges[command]

    def _mass_thrust_ratio(self, p: Mapping[str, Array]) -> Array:
        # The command that carries the weight, over g: what a pilot feels as the drone's mass.
        wanted = np.maximum((p["mass"] * GRAVITY - p["thrust_offset"]) / p["thrust_scale"], 1e-3)
        return self.thrust_reference * (wanted / self.thrust_reference) ** (1.0 / p["thrust_exponent"]) / GRAVITY

    def _thrust_slope(self, p: Mapping[str, Array]) -> Array:
        # d(force)/d(command) at hover, relative to the weight-to-command ratio: 1 for a linear curve without offset.
        command = self._mass_thrust_ratio(p) * GRAVITY
        force = p["mass"] * GRAVITY - p["thrust_offset"]
        return p["thrust_exponent"] * force / command * self._mass_thrust_ratio(p) / p["mass"]

    def inertial(self, params: Array, table: PhysicsParams) -> tuple[Array, Array]:
        """Mass [n] and principal inertia [n, 3] of parameter rows [n, P]."""
        scale = params[:, table.column("inertia_scale")]
        return params[:, table.column("mass")], scale[:, None] * self.inertia

    def body(self, world: World, params: PhysicsParams, decimation: int, seed: int) -> FlightBody:
        """Make the drones of ``world``."""
        controller = resolve(self._attitude, ATTITUDE, "attitude controller")
        attitude = controller(self.inertia, self.max_torque, params, world.sim_dt)
        gusts = np.random.default_rng([seed, GUSTS])
        highest = next(c.high for c in self.spec.commands if c.name == "thrust")
        actuation = RotorActuation(
            self.thrust_reference,
            highest,
            attitude,
            params,
            world.sim_dt,
            gusts,
            self.residual,
        )
        return FlightBody(self, actuation, world, params, len(self.spec.commands), decimation, seed)

    def nominal_state(self, count: int) -> State:
        """Make drones in slow level flight."""
        level, velocity = [0.0, 0.0, 0.0, 1.0], [0.5, 0.3, 0.1]
        rows = (np.tile(row, (count, 1)) for row in ([0.0, 0.0, 5.0], level, velocity, [0.0, 0.0, 0.0]))
        return flight_state(*rows)

    def identified_terms(self, path: Path) -> dict[str, RandomizationTerm]:
        """Read the randomization with rotor lag and drag as recordings showed them, two deviations either way.

        Raises:
            ConfigError: The file cannot be used.
        """
        content = read_document(path, self.name)
        try:
            entries, mass = content["parameters"], float(content["mass"])
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"{path} has no number as its 'mass'; run 'sim2real identify' again") from None
        terms = dict(self.randomization)
        names = {"time_constant": ("rotor_time_constant", 1.0), "drag_x": ("drag_xy", mass), "drag_z": ("drag_z", mass)}
        for name, (parameter, factor) in names.items():
            if entries.get(name, {}).get("identified"):
                bounds = self.parameters[parameter]
                found = [factor * float(entries[name][end]) for end in ("low", "high")]
                if found[0] > bounds.high or found[1] < bounds.low:
                    raise ConfigError(
                        f"{path}: {name} was identified as {found[0]:.3g} .. {found[1]:.3g}, outside the bounds "
                        f"{bounds.low:g} .. {bounds.high:g} of '{parameter}' in {self.folder / 'robot.yaml'}; widen "
                        "them where the drone is like that, or check the recordings"
                    )
                low, high = (min(max(value, bounds.low), bounds.high) for value in found)
                terms[parameter] = RandomizationTerm(
                    operation="set", distribution="uniform", range=(low, high), reason=f"identified: {path.name}"
                )
        return terms


def _delay(p: Mapping[str, Array]) -> Array:
    return p["action_delay"] + p["observation_delay"]


def _drag(p: Mapping[str, Array]) -> Array:
    return p["drag_xy"] / p["mass"]


def _read_network(path: Path, robot: str) -> Residual | None:
    content = read_document(path, robot)
    try:
        return read_residual(path, content.get("residual"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged at 'residual' ({error}); run 'sim2real identify' again") from error
