"""Crazyflie 2.x: rotor lag, thrust curve, attitude loop and drag, and what its estimator reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from sim2real.errors import ConfigError
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.residual import Residual, read_residual
from sim2real.runtime.flight_signals import SIGNALS, flight_signals
from sim2real.runtime.geometry import quat_conjugate, quat_multiply, quat_to_matrix, rotate_inverse, rpy_to_quat, yaw_of
from sim2real.runtime.spec import RobotSpec
from sim2real.sim.randomization import RandomizationTerm
from sim2real.sim.robot import Actuation, BodyState, IdentifiedQuantity, RobotSim
from sim2real.sim.world import World
from sim2real.types import Array, EnvIds

FOLDER = Path(__file__).parent
GRAVITY = 9.81


class Crazyflie:
    """The robot model that :func:`sim2real.robots.load_robot` returns for ``crazyflie``.

    Args:
        identified: Parameters file of 'sim2real identify'; the residual network it names, if any, joins the physics.

    Attributes:
        residual: That network; None without one.
        lift_per_input: Specific lift of four rotors at its unit input, m/s².
    """

    name = "crazyflie"
    urdf = FOLDER / "crazyflie.urdf"
    signals = SIGNALS
    position_signal = "position_error"

    def __init__(self, identified: Path | None = None) -> None:
        data = yaml.safe_load((FOLDER / "robot.yaml").read_text())
        self.spec = RobotSpec(**data["spec"])
        self.parameters = {name: PhysicsParameter(**entry) for name, entry in data["parameters"].items()}
        self.randomization = {name: RandomizationTerm(**entry) for name, entry in data["randomization"].items()}
        self.inertia = np.array(data["body"]["inertia"])
        self.max_torque = np.array(data["body"]["max_torque"])
        self.thrust_reference = float(data["body"]["thrust_reference_n"])
        thrust = next(c for c in self.spec.commands if c.name == "thrust")
        self.max_thrust = thrust.high
        self.identified = {
            "mass_thrust_ratio": IdentifiedQuantity("kg", self._mass_thrust_ratio),
            "thrust_slope": IdentifiedQuantity("1", self._thrust_slope),
            "delay": IdentifiedQuantity("s", lambda p: p["action_delay"] + p["observation_delay"]),
            "rotor_time_constant": IdentifiedQuantity("s", lambda p: p["rotor_time_constant"]),
            "attitude_bandwidth": IdentifiedQuantity("rad/s", lambda p: p["attitude_bandwidth"]),
            "attitude_damping": IdentifiedQuantity("1", lambda p: p["attitude_damping"]),
            "attitude_gain": IdentifiedQuantity("1", lambda p: p["attitude_gain"]),
            "roll_trim": IdentifiedQuantity("rad", lambda p: p["roll_trim"]),
            "pitch_trim": IdentifiedQuantity("rad", lambda p: p["pitch_trim"]),
            "drag": IdentifiedQuantity("1/s", lambda p: p["drag_xy"] / p["mass"]),
        }

        self.residual, self.lift_per_input = _read_network(identified) if identified else (None, 1.0)

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

    def actuation(self, params: PhysicsParams, sim_dt: float, rng: np.random.Generator) -> Actuation:
        """Rotors and stock attitude controller for ``params``."""
        return CrazyflieActuation(self, params, sim_dt, rng)

    def identified_terms(self, path: Path) -> dict[str, RandomizationTerm]:
        """The randomization with rotor lag and drag as recordings showed them, two deviations either way.

        Raises:
            ConfigError: The file cannot be used.
        """
        try:
            content = yaml.safe_load(path.read_text())
            entries, mass = content["parameters"], float(content["mass"])
        except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} is no parameters file of a drone ({error}); run 'sim2real identify'") from error
        if content.get("robot") != self.name:
            raise ConfigError(f"{path} holds parameters of '{content.get('robot')}', not of '{self.name}'")
        terms = dict(self.randomization)
        names = {"time_constant": ("rotor_time_constant", 1.0), "drag_x": ("drag_xy", mass), "drag_z": ("drag_z", mass)}
        for name, (parameter, factor) in names.items():
            if entries.get(name, {}).get("identified"):
                bounds = self.parameters[parameter]
                low, high = (
                    min(max(factor * float(entries[name][end]), bounds.low), bounds.high) for end in ("low", "high")
                )
                terms[parameter] = RandomizationTerm(
                    operation="set", distribution="uniform", range=(low, high), reason=f"identified: {path.name}"
                )
        return terms

    def position(self, state: BodyState) -> Array:
        """Of the body, world frame [N, 3] m."""
        return state.pos

    def nominal_state(self, count: int) -> BodyState:
        """In slow level flight."""
        return BodyState(
            np.tile([0.0, 0.0, 5.0], (count, 1)),
            np.tile([0.0, 0.0, 0.0, 1.0], (count, 1)),
            np.tile([0.5, 0.3, 0.1], (count, 1)),
            np.zeros((count, 3)),
        )

    def simulator(
        self, count: int, terms: Mapping[str, RandomizationTerm], decimation: int = 2, seed: int = 0
    ) -> RobotSim:
        """``count`` simulated drones."""
        return RobotSim(self, count, terms, decimation, seed)

    def measure(self, state: BodyState, goal: Array) -> dict[str, Array]:
        """Signals of a state estimate; see :data:`sim2real.runtime.flight_signals.SIGNALS`."""
        return flight_signals(state.pos - goal, state.quat, state.lin_vel, state.ang_vel)


class CrazyflieActuation:
    """Commands (thrust N, roll rad, pitch rad, yaw rate rad/s) to body wrenches.

    The attitude loop is a second-order system in roll, pitch and yaw error. Its gains are chosen so
    that the *discrete* loop, with Bullet's semi-implicit step, has exactly the poles exp(λ·dt) of the
    continuous one: the response does not depend on the physics step.

    Args:
        model: Constants of the airframe.
        params: Physics parameters, read at every step and at resets.
        sim_dt: Physics step, s.
        rng: Source of the gusts.
    """

    def __init__(self, model: Crazyflie, params: PhysicsParams, sim_dt: float, rng: np.random.Generator) -> None:
        self._model, self._params, self._dt, self._rng = model, params, sim_dt, rng
        count = len(params.values)
        self._force = np.zeros(count)
        self._yaw_setpoint = np.zeros(count)
        self._gust = np.zeros((count, 3))
        self._time = np.zeros(count)
        self._stiffness = np.zeros((count, 3))
        self._damping = np.zeros((count, 3))
        self._lag = np.zeros(count)

    def reset(self, rows: EnvIds, state: BodyState) -> None:
        """Rotors at hover, yaw setpoint at the present yaw, calm air."""
        p = self._params.rows(rows)
        self._force[rows] = p["mass"] * GRAVITY
        self._yaw_setpoint[rows] = yaw_of(state.quat)
        self._gust[rows] = p["gust_force_std"][:, None] * self._rng.standard_normal((len(rows), 3))
        self._time[rows] = 0.0
        frequency = np.stack((p["attitude_bandwidth"], p["attitude_bandwidth"], p["yaw_bandwidth"]), axis=1)
        damping = np.stack((p["attitude_damping"], p["attitude_damping"], np.ones(len(rows))), axis=1)
        self._stiffness[rows], self._damping[rows] = pole_matched_gains(frequency, damping, self._dt)
        self._lag[rows] = 1.0 - np.exp(-self._dt / p["rotor_time_constant"])

    def apply(self, world: World, state: BodyState, command: Array) -> None:
        """Put the wrench of the next physics step on every robot."""
        p, dt = self._params, self._dt
        self._yaw_setpoint += dt * command[:, 3]
        matrix = quat_to_matrix(state.quat)
        world.apply_wrench(self._body_force(p, state, matrix, command), self._torque(p, state, matrix, command))
        self._time += dt

    def _body_force(self, p: PhysicsParams, state: BodyState, matrix: Array, command: Array) -> Array:
        reference, dt = self._model.thrust_reference, self._dt
        lift = p["thrust_scale"] * (1.0 - p["battery_sag_rate"] * self._time)
        wanted = lift * reference * (np.maximum(command[:, 0], 0.0) / reference) ** p["thrust_exponent"]
        wanted = np.clip(wanted + p["thrust_offset"], 0.0, 1.5 * self._model.max_thrust)
        self._force += self._lag * (wanted - self._force)
        keep = np.exp(-dt / p["gust_time_constant"])[:, None]
        spread = (p["gust_force_std"] * np.sqrt(1.0 - keep[:, 0] ** 2))[:, None]
        self._gust = keep * self._gust + spread * self._rng.standard_normal(self._gust.shape)
        air = state.lin_vel.copy()
        air[:, 0] -= p["wind_x"]
        air[:, 1] -= p["wind_y"]
        force = rotate_inverse(matrix, air)
        force[:, :2] *= -p["drag_xy"][:, None]
        force[:, 2] *= -p["drag_z"]
        force += rotate_inverse(matrix, self._gust)
        force[:, 2] += self._force
        if self._model.residual is not None:
            force += p["mass"][:, None] * self._unmodelled(self._model.residual, p, state, matrix)
        return force

    def _unmodelled(self, residual: Residual, p: PhysicsParams, state: BodyState, matrix: Array) -> Array:
        """Specific force [N, 3] m/s² that recordings showed besides; all rotors share the thrust.

        The angular part belongs to a drone without its attitude controller, which has made up for it here.
        """
        v_body, rate = rotate_inverse(matrix, state.lin_vel), rotate_inverse(matrix, state.ang_vel)
        inputs = np.repeat((self._force / p["mass"] / self._model.lift_per_input)[:, None], 4, axis=1)
        return residual(v_body, rate, matrix[:, 2, :], inputs)[0]

    def _torque(self, p: PhysicsParams, state: BodyState, matrix: Array, command: Array) -> Array:
        wanted = np.empty((len(command), 3))
        wanted[:, :2] = command[:, 1:3] * p["attitude_gain"][:, None]
        # The controller levels what its own sensor calls level: trim tilts the true attitude the other way.
        wanted[:, 0] -= p["roll_trim"]
        wanted[:, 1] -= p["pitch_trim"]
        wanted[:, 2] = self._yaw_setpoint
        error = quat_multiply(quat_conjugate(state.quat), rpy_to_quat(wanted))
        angle = 2.0 * np.where(error[:, 3:] < 0.0, -1.0, 1.0) * error[:, :3]
        acceleration = self._stiffness * angle - self._damping * rotate_inverse(matrix, state.ang_vel)
        limit = self._model.max_torque
        return np.clip(self._model.inertia * acceleration, -limit, limit)


def _read_network(path: Path) -> tuple[Residual | None, float]:
    try:
        content = yaml.safe_load(path.read_text())
        network = read_residual(path, content.get("residual"))
        return network, float(np.sum(content["flight_model"]["thrust"])) if network else 1.0
    except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no parameters file of a drone ({error}); run 'sim2real identify'") from error


def pole_matched_gains(frequency: Array, damping: Array, dt: float) -> tuple[Array, Array]:
    """Gains of a second-order loop that keep its continuous poles under a semi-implicit Euler step.

    With error e and rate w the step is ``w += dt (a e - b w); e -= dt w``, whose characteristic
    polynomial has determinant ``1 - dt b`` and trace ``2 - dt² a - dt b``. Both are set to those of
    the poles ``exp(λ dt)``, ``λ = frequency (-damping ± sqrt(damping² - 1))``.

    Args:
        frequency: Natural frequency, rad/s.
        damping: Damping ratio.
        dt: Step, s.

    Returns:
        Stiffness a (1/s²) and damping b (1/s), of the arguments' shape.
    """
    root = np.sqrt((damping**2 - 1.0).astype(np.complex128))
    decay = -damping * frequency * dt
    trace = (2.0 * np.exp(decay) * np.cosh(root * frequency * dt)).real
    determinant = np.exp(2.0 * decay)
    b = (1.0 - determinant) / dt
    a = (2.0 - dt * b - trace) / dt**2
    return a, b
