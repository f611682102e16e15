"""The parameters file that an identification writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim2real.identify.arm.fit import JointFit
from sim2real.identify.arm.space import LOGARITHMIC
from sim2real.identify.arm.verdict import KNOWN
from sim2real.robots.arm import Arm
from sim2real.robots.arm_file import ServoQuantity
from sim2real.types import Array


def parameters_file(arm: Arm, fits: Sequence[JointFit], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a parameters file: values with spread and bounds, and covariances."""
    parameters: dict[str, dict[str, float | str | bool]] = {}
    for fit in fits:
        seen = dict(zip(("low_stop", "high_stop"), fit.stops_seen, strict=True))
        stds = dict(zip(fit.names, np.sqrt(np.diag(fit.covariance)).tolist(), strict=True))
        for name, value in fit.values.items():
            bounds, std = arm.servo[name], stds.get(name, 0.0)
            width = value * np.log(bounds.high / bounds.low) if name in LOGARITHMIC else bounds.high - bounds.low
            parameters[f"{fit.joint}.{name}"] = {
                "value": _written(value, bounds),
                "std": round(std, 6),
                "low": _written(value - 2.0 * std, bounds),
                "high": _written(value + 2.0 * std, bounds),
                "unit": bounds.unit,
                "identified": bool(name in fit.names and std < KNOWN * width),
            }
            if name in seen:
                parameters[f"{fit.joint}.{name}"]["seen_in_motions"] = seen[name]
    return {
        "kind": "sim2real_parameters",
        "robot": arm.name,
        **extra,
        "parameters": parameters,
        "correlation": {
            fit.joint: {"names": list(fit.names), "matrix": np.round(correlation(fit.covariance), 3).tolist()}
            for fit in fits
        },
    }


def fitted_values(arm: Arm, fits: Sequence[JointFit]) -> dict[str, Array]:
    """Servo quantities [J] by name, as :func:`parameters_file` writes them."""
    return {name: np.array([_written(fit.values[name], arm.servo[name]) for fit in fits]) for name in arm.servo}


def _written(number: float, bounds: ServoQuantity) -> float:
    """A number with as many digits as a file keeps, inside bounds that may have more."""
    return float(np.clip(round(number, 6), bounds.low, bounds.high))


def correlation(matrix: Array) -> Array:
    """Correlations of a covariance [P, P]."""
    stds = np.sqrt(np.diag(matrix))
    return matrix / np.maximum(np.outer(stds, stds), 1e-300)
