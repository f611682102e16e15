"""Names of types that every layer shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

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

# Widths of a network's hidden layers, of which there is at least one.
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class Model(BaseModel):
    """Base of all specifications and configurations: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
