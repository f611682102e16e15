"""Kinds of motion: what cross-validation holds out as a whole.

Motions of one kind share speeds, joints and poses. A fit that has seen one of them knows the others, so folds of
motions drawn at random promise less error than a motion of a new kind meets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from sim2real.recordings.logs import JointLog
from sim2real.types import Array

STILL_RAD_S = 0.02


def kinds_of(logs: Sequence[JointLog], count: int) -> NDArray[np.int64]:
    """Number of the kind, 0 to ``count`` - 1, of every motion [L]: clusters of what is commanded (Ward 1963)."""
    features = np.array([_features(log) for log in logs])
    spread = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    found = fcluster(linkage(features, "ward"), count, "maxclust") - 1
    # Motions that are all alike make fewer clusters; the largest are divided then.
    while len(np.unique(found)) < count:
        largest = np.nonzero(found == np.bincount(found).argmax())[0]
        found[largest[len(largest) // 2 :]] = found.max() + 1
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _features(log: JointLog) -> Array:
    """Features of the commands: where the joints are, how far and how fast each moves, and how long all stand still."""
    speed = np.abs(np.gradient(log.command, log.time, axis=0))
    still = float((speed.max(axis=1) < STILL_RAD_S).mean())
    fast = np.log(np.maximum(np.quantile(speed, 0.95, axis=0), STILL_RAD_S))
    return np.concatenate((log.command.mean(axis=0), log.command.std(axis=0), fast, [still]))
