"""Names of types that every layer shares."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Float32 = NDArray[np.float32]
Bools = NDArray[np.bool_]
EnvIds = NDArray[np.int64]  # indices of environments, [n]
Image = NDArray[np.uint8]  # [height, width, 3] RGB
# What N robots and their scene do now, as arrays [N, d] by name. A floating base has ``pos`` (m), ``quat`` (xyzw, body
# to world), ``lin_vel`` (m/s) and ``ang_vel`` (rad/s), world frame. An arm has ``joint_pos`` (rad), ``joint_vel``
# (rad/s) and ``ee_pos`` (m, base frame). A scene adds ``object_pos`` (m) and ``object_vel`` (m/s).
State = Mapping[str, Array]
# stage, step done, steps in all, metrics
Progress = Callable[[str, int, int, dict[str, float]], None]


class Model(BaseModel):
    """Base of all specifications and configurations: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def with_new_names(data: Any, **old: str) -> Any:
    """Settings with keys that were renamed under their new names; each old one is accepted for one release.

    For a ``model_validator(mode="before")``. A warning on stderr names the key.

    Args:
        data: As given to a model.
        old: New name of every old key.
    """
    if not isinstance(data, Mapping) or not set(data) & set(old):
        return data
    result = {key: value for key, value in data.items() if key not in old}
    for key in data:
        if key in old:
            log.warning("the setting '%s' is now '%s'; the old name goes with the next release", key, old[key])
            value, known = data[key], result.get(old[key])
            result[old[key]] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return result
