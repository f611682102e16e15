"""The contract between simulation and robot: what a policy reads, what it commands, of which robot.

Every value here is frozen, checked on construction, and written as JSON into the bundle.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from sim2real.types import Model

FORMAT_VERSION: Final = 2
# What a policy knows without measuring: the network's last output, and how far the last command is from what is
# measured (increments only).
OWN_SIGNALS: Final = ("last_action", "tracking_error")


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


class ReportTerm(Model):
    """A quantity that the network reports beside its action, with its standard deviation, in ``unit``."""

    name: str
    unit: str


class PolicySpec(Model):
    """Everything needed to run a policy's network on a robot, and nothing about how it was trained.

    Attributes:
        signals: Function that makes the measured signals: a name of ``runtime.signals.SIGNALS``, or ``module:Class``.
        goal: What a goal is made of.
        observation: Groups of observation terms by name, in the order of the network's inputs.
        memory: Numbers the network carries from step to step; 0 for one without.
        report: What the network reports beside its action.
        action: Terms of the network's output, in order.
    """

    format_version: Literal[2] = FORMAT_VERSION
    robot: str
    task: str
    control_rate_hz: float = Field(gt=0)
    signals: str
    goal: SignalSpec
    observation: dict[str, tuple[ObservationTerm, ...]]
    memory: int = Field(default=0, ge=0)
    report: tuple[ReportTerm, ...] = ()
    action: tuple[ActionTerm, ...]

    @model_validator(mode="after")
    def _consistent(self) -> PolicySpec:
        if not self.observation or not all(self.observation.values()):
            raise ValueError("every group of 'observation' needs at least one term, and there must be one group")
        reserved = {"memory"} & set(self.observation)
        if reserved:
            raise ValueError("no group of 'observation' can be called 'memory', which is a network input of its own")
        for group, terms in self.observation.items():
            names = [term.name for term in terms]
            if len(set(names)) != len(names):
                raise ValueError(f"observation.{group}: a term appears twice in {names}")
        measured = {term.name: term for term in self.terms()}
        for action in self.action:
            if action.measured and action.name not in getattr(measured.get(action.measured), "components", ()):
                raise ValueError(f"action '{action.name}' starts from '{action.measured}', which no term observes")
        return self

    @property
    def control_dt(self) -> float:
        """Control period, s."""
        return 1.0 / self.control_rate_hz

    def terms(self) -> tuple[ObservationTerm, ...]:
        """All observation terms, group after group."""
        return tuple(term for group in self.observation.values() for term in group)

    def inputs(self) -> dict[str, int]:
        """Widths of the network's inputs by name: the observation groups, and ``memory`` where it has one."""
        sizes = {name: group_size(terms) for name, terms in self.observation.items()}
        return sizes | ({"memory": self.memory} if self.memory else {})

    def outputs(self) -> dict[str, int]:
        """Widths of the network's outputs by name, in order."""
        sizes = {"action": len(self.action)}
        if self.memory:
            sizes["next_memory"] = self.memory
        if self.report:
            sizes |= {"report_mean": len(self.report), "report_std": len(self.report)}
        return sizes

    def needed_signals(self) -> dict[str, SignalSpec]:
        """Signals that the terms need, by name."""
        return {
            term.name: SignalSpec(name=term.name, components=term.components, unit=term.unit, frame=term.frame)
            for term in self.terms()
        }

    def measured_signals(self) -> dict[str, SignalSpec]:
        """Those of :meth:`needed_signals` that the robot must provide."""
        return {name: signal for name, signal in self.needed_signals().items() if name not in OWN_SIGNALS}


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
        interface: ROS 2 messages it speaks: a name of ``deploy.adapters.ADAPTERS``, or ``module:Class``.
        ee: Link of an arm's end effector; empty for a robot without one.
    """

    name: str
    actuators: tuple[str, ...]
    control_rate_hz: float = Field(gt=0)
    commands: tuple[CommandLimit, ...]
    envelope: dict[str, float]
    interface: str
    ee: str = ""


def group_size(terms: tuple[ObservationTerm, ...]) -> int:
    """Length of the vector that a group of observation terms makes."""
    return sum(term.size * term.history for term in terms)
