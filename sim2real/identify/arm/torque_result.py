"""The result of a fit to torques: friction, masses and gains, with intervals, and what of it training can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim2real.identify.arm.torque_fit import TorqueFit, TorqueModel
from sim2real.types import Array

HALVED = 0.5  # of what was believed before: at most so wide is the interval of a value that recordings determine
AT_ZERO = 1e-6
STEP = 1e-5


@dataclass(frozen=True)
class Quantity:
    """One value with its standard deviation; ``why`` says what keeps it from being identified, if anything does.

    Attributes:
        name: ``JOINT.QUANTITY``, ``LINK.QUANTITY`` or of the payload.
        over_poses: What is added to both ends of its interval: it differs from pose to pose.
    """

    name: str
    unit: str
    value: float
    std: float
    why: str = ""
    over_poses: tuple[float, float] = (0.0, 0.0)

    def entry(self) -> dict[str, float | str | bool]:
        """As a parameters file has it, with the 95 % interval."""
        low, high = (self.value + sign * 2.0 * self.std + end
                     for sign, end in zip((-1.0, 1.0), self.over_poses, strict=True))  # fmt: skip
        numbers = {"value": self.value, "std": self.std, "low": low, "high": high}
        written: dict[str, float | str | bool] = {key: float(f"{number:.6g}") for key, number in numbers.items()}
        return written | {"unit": self.unit, "identified": not self.why} | ({"why": self.why} if self.why else {})


def quantities(model: TorqueModel, fit: TorqueFit, poses: Array) -> list[Quantity]:
    """All quantities of a fit; ``poses`` [N, J] rad are some of those that were recorded."""
    arm, known = model.arm, model.known
    current = known.constants is not None
    scaled = known.constants is None or bool(np.isfinite(known.constants).all()) or bool(known.payload_kg)
    inertia = model.inertia_rows(poses)
    mean = inertia.mean(axis=0)
    names: list[tuple[str, str]] = []
    for joint in arm.joints:
        names += [(f"{joint}.{what}", unit) for what, unit in (
            ("coulomb", "N*m"), ("viscous", "N*m*s/rad"), ("torque_offset", "N*m"), ("rotor_inertia", "kg*m^2"),
            ("armature", "kg*m^2"), *((("drive_gain", "N*m/A"),) if current else ()))]  # fmt: skip
    for body in model.bodies:
        names += [(f"{body.link}.{what}", unit) for what, unit in
                  (("mass", "kg"), ("mass_scale", "1"), ("com_scale", "1"))]  # fmt: skip
    if model.loaded:
        names += [("payload", "kg"), *((f"payload_{axis}", "m") for axis in "xyz")]

    def values(x: Array) -> Array:
        bodies, payload, frictions, gains = model.split(x)
        rotor, viscous, coulomb, offset = frictions * np.stack([np.ones_like(gains), gains, gains, gains])
        own = [coulomb, viscous, offset, rotor, rotor + mean @ bodies.ravel(), *([gains] if current else [])]
        result = [np.stack(own, axis=1).ravel()]
        for body, found in zip(model.bodies, bodies, strict=True):
            first, was = body.parameters[1:4] / body.parameters[0], found[1:4] / found[0]
            further = was @ first / max(float(first @ first), 1e-12)
            result.append(np.array([found[0], found[0] / body.parameters[0], further]))
        if model.loaded:
            place, turned = model.ee_in_tip
            result.append(np.append(payload[0], turned.T @ (payload[1:4] / payload[0] - place)))
        return np.concatenate(result)

    steps = STEP * np.eye(len(fit.x))
    slope = np.stack([(values(fit.x + d) - values(fit.x - d)) / (2.0 * STEP) for d in steps], axis=1)
    std = np.sqrt(np.einsum("qp,pr,qr->q", slope, fit.covariance, slope))
    before = np.sqrt((slope**2 * model.std**2).sum(axis=1))
    ends: Array = np.quantile(inertia @ model.split(fit.x)[0].ravel(), [0.05, 0.95], axis=0)
    ends -= ends.mean(axis=0)
    found = []
    for (name, unit), value, width, wide in zip(names, values(fit.x), std, before, strict=True):
        owner, _, what = name.rpartition(".")
        index = arm.joints.index(owner) if owner in arm.joints else None
        why = ""
        if index is not None and not model.moving[index]:
            why = "the joint does not move"
        elif not scaled and unit != "m" and what != "com_scale":
            why = "currents alone give it up to a common factor"
        elif what in ("coulomb", "viscous", "rotor_inertia") and abs(value) < AT_ZERO:
            why = "it lies on its bound, zero"
        elif width > HALVED * wide:
            why = "the recordings do not determine it"
        over = (0.0, 0.0)
        if index is not None and what == "armature":
            over = float(ends[0, index]), float(ends[1, index])
        found.append(Quantity(name, unit, float(value), float(width), why, over))
    return found


def for_training(model: TorqueModel, found: list[Quantity]) -> tuple[dict[str, Any], list[str]]:
    """Entries of the parameters file that the arm's physics knows, and remarks about those it cannot take."""
    arm, entries, remarks = model.arm, {}, []
    parts = {body.link: body.parts for body in model.bodies}
    for quantity in found:
        owner, _, what = quantity.name.rpartition(".")
        names = [quantity.name]
        if what in ("mass_scale", "com_scale"):
            names = [f"{part}.{what}" for part in parts[owner]]
            if what == "com_scale" and len(names) > 1:
                continue  # several links are fixed to each other: which of them is off is not known
        if quantity.name == "payload_z":
            names = ["payload_offset"]
        for name in names:
            if name not in arm.parameters:
                continue
            bounds, entry = arm.parameters[name], quantity.entry()
            if not bounds.low <= quantity.value <= bounds.high:
                if not quantity.why:
                    remarks.append(
                        f"{name} = {quantity.value:.4g} {quantity.unit} is outside {bounds.low:g} .. {bounds.high:g}, "
                        f"which {arm.name}'s robot.yaml allows; it is not written for training"
                    )
                continue
            for end in ("low", "high"):
                entry[end] = float(np.clip(float(entry[end]), bounds.low, bounds.high))
            entries[name] = entry
    return entries, remarks
