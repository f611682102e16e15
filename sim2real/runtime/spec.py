"""The contract between simulation and robot: what a policy reads, what it commands, of which robot.

Every value here is frozen, checked on construction, and written as JSON into the bundle.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sim2real.types import Model

FORMAT_VERSION: Final = 1
# What a policy knows without measuring: the network's last output, and how far the last command is from what is
# measured (increments only).
OWN_SIGNALS: Final = ("last_action", "command_lead")


class SignalSpec(Model):
    """One measured quantity: its components by name, in order, with unit and frame."""

    name: str
    components: tuple[str, ...]
    unit: str
    frame: str

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.components)


class ObservationTerm(SignalSpec):
    """One signal as the network sees it: ``clip((x - offset) * scale)``, the last ``history`` frames.

    Attributes:
        scale: Factor that brings the signal to order one, 1 / unit.
        offset: Subtracted before scaling, in the signal's unit.
        clip: Limit of the absolute value after scaling.
        history: Number of control steps kept, oldest first, the present one last.
    """

    scale: float = 1.0
    offset: float = 0.0
    clip: float = Field(default=10.0, gt=0)
    history: int = Field(default=1, ge=1)


class ActionTerm(Model):
    """One component of the command: ``low .. high`` for a network output of -1 .. 1.

    Attributes:
        limits: Makes the value an increment: it is added to the last command, and the sum kept within these. The
            first increment is added to what is measured, so a robot starts from where it is.
        measured: The signal whose component of the same name the command is compared with; given with ``limits``.
    """

    name: str
    unit: str
    low: float
    high: float
    limits: tuple[float, float] | None = None
    measured: str | None = None

    @model_validator(mode="after")
    def _ordered(self) -> ActionTerm:
        if not self.low < self.high:
            raise ValueError(f"action '{self.name}': low {self.low} is not below high {self.high}")
        if (self.limits is None) != (self.measured is None):
            raise ValueError(f"action '{self.name}': an increment needs both 'limits' and 'measured'")
        if self.limits and not self.limits[0] < self.limits[1]:
            raise ValueError(f"action '{self.name}': limits {self.limits} are not (low, high)")
        return self

    @property
    def reach(self) -> tuple[float, float]:
        """Lowest and highest command this term can give."""
        return self.limits or (self.low, self.high)


class ParameterTerm(Model):
    """A physical parameter the policy is told, normalised to -1 .. 1 over ``low .. high``."""

    name: str
    unit: str
    low: float
    high: float
    nominal: float

    @model_validator(mode="after")
    def _ordered(self) -> ParameterTerm:
        if not self.low < self.high:
            raise ValueError(f"parameter '{self.name}': low {self.low} is not below high {self.high}")
        return self


class PolicySpec(Model):
    """Everything needed to run a policy's networks on a robot, and nothing about how they were trained.

    Attributes:
        observation: Terms of the policy network's input, in order.
        estimator_observation: Terms of the identification network's input; empty without one.
        parameters: What the identification network estimates and the policy is told.
        estimate_time_constant_s: Averaging of the estimated parameters over time; 0 takes each as it comes.
        memory: Numbers the policy network carries from step to step; 0 for one without recurrence.
        action: Terms of the network's output, in order.
    """

    format_version: Literal[1] = FORMAT_VERSION
    robot: str
    task: str
    control_rate_hz: float = Field(gt=0)
    observation: tuple[ObservationTerm, ...]
    estimator_observation: tuple[ObservationTerm, ...] = ()
    parameters: tuple[ParameterTerm, ...] = ()
    estimate_time_constant_s: float = Field(default=0.0, ge=0)
    memory: int = Field(default=0, ge=0)
    action: tuple[ActionTerm, ...]

    @model_validator(mode="after")
    def _consistent(self) -> PolicySpec:
        for label, terms in (("observation", self.observation), ("estimator_observation", self.estimator_observation)):
            names = [term.name for term in terms]
            if len(set(names)) != len(names):
                raise ValueError(f"{label}: a term appears twice in {names}")
        if bool(self.estimator_observation) != bool(self.parameters):
            raise ValueError("estimator_observation and parameters are given together or not at all")
        if self.memory and self.parameters:
            raise ValueError("a policy with memory identifies by itself; it is told no parameters")
        measured = {term.name: term for term in (*self.observation, *self.estimator_observation)}
        for action in self.action:
            if action.measured and action.name not in getattr(measured.get(action.measured), "components", ()):
                raise ValueError(f"action '{action.name}' starts from '{action.measured}', which no term observes")
        return self

    @property
    def control_dt(self) -> float:
        """Control period, s."""
        return 1.0 / self.control_rate_hz

    @property
    def observation_size(self) -> int:
        """Length of the policy network's observation, without parameters."""
        return group_size(self.observation)

    @property
    def estimator_size(self) -> int:
        """Length of the identification network's input."""
        return group_size(self.estimator_observation)

    def signals(self) -> dict[str, SignalSpec]:
        """The signals the terms need, by name."""
        return {
            term.name: SignalSpec(name=term.name, components=term.components, unit=term.unit, frame=term.frame)
            for term in (*self.observation, *self.estimator_observation)
        }

    def measured_signals(self) -> dict[str, SignalSpec]:
        """Those of :meth:`signals` that the robot must provide."""
        return {name: signal for name, signal in self.signals().items() if name not in OWN_SIGNALS}

    def nominal_parameters(self) -> NDArray[np.float32]:
        """Normalised nominal parameters, shape [P]."""
        nominal = np.array([[p.nominal for p in self.parameters]], dtype=np.float64)
        return normalise_parameters(self.parameters, nominal)[0]


class CommandLimit(Model):
    """Hard limit of one command component; nothing outside it ever reaches the robot.

    Attributes:
        slew_per_s: Largest change per second, in units per second.
        hold: Value that keeps the robot still at nominal parameters; None stays at whatever was sent last (a joint).
        land: Value that brings the robot down slowly (a drone); None stays as well.
    """

    name: str
    unit: str
    low: float
    high: float
    slew_per_s: float = Field(gt=0)
    hold: float | None
    land: float | None

    @model_validator(mode="after")
    def _inside(self) -> CommandLimit:
        if (self.hold is None) != (self.land is None):
            raise ValueError(f"command '{self.name}': 'hold' and 'land' both name a value, or neither does")
        values = [value for value in (self.hold, self.land) if value is not None]
        if not all(self.low <= value <= self.high for value in values):
            raise ValueError(f"command '{self.name}': hold and land must lie between {self.low} and {self.high}")
        return self


class RobotSpec(Model):
    """A robot as drivers and the safety filter know it: names, order, units, limits, rate.

    Attributes:
        actuators: Joints or rotors by name, in order.
        envelope: Largest trusted absolute value of a signal's norm (for example position_error: 3 m),
            beyond which the estimate is not believed and the robot slows down.
        ee: Link of an arm's end effector; empty for a robot without one.
    """

    name: str
    actuators: tuple[str, ...]
    control_rate_hz: float = Field(gt=0)
    commands: tuple[CommandLimit, ...]
    envelope: dict[str, float]
    ee: str = ""


def group_size(terms: tuple[ObservationTerm, ...]) -> int:
    """Length of the vector that a group of observation terms makes."""
    return sum(term.size * term.history for term in terms)


def normalise_parameters(terms: tuple[ParameterTerm, ...], values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Physical parameters [N, P] to -1 .. 1 over each term's range, clipped at ±1.5."""
    low = np.array([term.low for term in terms])
    high = np.array([term.high for term in terms])
    return np.clip(2.0 * (values - low) / (high - low) - 1.0, -1.5, 1.5).astype(np.float32)


def denormalise_parameters(terms: tuple[ParameterTerm, ...], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inverse of :func:`normalise_parameters` inside the clip: [N, P] to physical units."""
    low = np.array([term.low for term in terms])
    high = np.array([term.high for term in terms])
    return low + 0.5 * (values.astype(np.float64) + 1.0) * (high - low)
