"""Effect of a translation on those who act on the images: a localizer's answers, a policy's commands."""

from __future__ import annotations

import numpy as np

from sim2real.errors import AdaptationError
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.perception import Locator
from sim2real.runtime.signals import load_signals
from sim2real.types import Array, Image

PUSH_M = 0.1  # from an object to its goal, straight away from the base


def located(locator: Locator, images: Image) -> Array:
    """Positions of the object [N, 3] m in the base frame, as a localizer sees them in images [N, H, W, 3]."""
    return np.array([locator.locate(np.ascontiguousarray(image)).position for image in images])


def located_change(before: Array, after: Array, truth: Array | None = None) -> dict[str, float]:
    """Measure how far a fixed localizer's answers move when images are translated.

    Args:
        before: Places [N, 3] m found in rendered images.
        after: Places [N, 3] m found in their translations.
        truth: Where the object is [N, 3] m, where that is known.

    Returns:
        ``localizer.moved_median_m`` and ``localizer.moved_p95_m`` in m over the table; with ``truth`` also the mean
        errors ``localizer.error_before_m`` and ``localizer.error_after_m``.
    """
    moved = np.linalg.norm((after - before)[:, :2], axis=1)
    figures = {"moved_median_m": float(np.median(moved)), "moved_p95_m": float(np.percentile(moved, 95))}
    if truth is not None:
        for when, found in (("before", before), ("after", after)):
            figures[f"error_{when}_m"] = float(np.linalg.norm((found - truth)[:, :2], axis=1).mean())
    return {f"localizer.{name}": value for name, value in figures.items()}


def commanded_change(bundle: PolicyBundle, joint_pos: Array, before: Array, after: Array) -> dict[str, float]:
    """Measure the policy-action divergence: how far a pushing policy's first commands move with the object.

    The arm stands still at the images' own poses; every goal lies ``PUSH_M`` beyond the object seen in the rendered
    image, and is the same for both.

    Args:
        bundle: The policy.
        joint_pos: Of the images [N, J] rad, in the order of the bundle's joints.
        before: Places [N, 3] m found in rendered images.
        after: Places [N, 3] m found in their translations.

    Returns:
        ``policy.moved_median_rad`` and ``policy.moved_p95_rad``: largest difference over the joints between the two
        commands of one control period; ``policy.moved_share``: the median difference over the median length of the
        commanded step, both as norms over the joints.

    Raises:
        AdaptationError: The policy does not push, or has other joints.
    """
    signals = load_signals(bundle.spec.signals, bundle.robot, bundle.chain(), ())
    if "object_pos" not in signals.needs:
        raise AdaptationError(f"the policy in {bundle.path} reads no object; give one that was trained on 'push'")
    if joint_pos.shape[1] != len(bundle.robot.actuators):
        raise AdaptationError(
            f"the images are of an arm with {joint_pos.shape[1]} joints, the policy in {bundle.path} moves "
            f"{len(bundle.robot.actuators)}"
        )
    away = before[:, :2] / np.maximum(np.linalg.norm(before[:, :2], axis=1, keepdims=True), 1e-9)
    goal = before + PUSH_M * np.pad(away, ((0, 0), (0, 1)))
    still = np.zeros_like(joint_pos)
    commands = []
    for seen in (before, after):
        runner = bundle.runner(len(joint_pos))
        runner.reset()
        state = {"joint_pos": joint_pos, "joint_vel": still, "object_pos": seen}
        commands.append(runner.step(signals.measure(state, goal)))
    moved, step = commands[1] - commands[0], commands[0] - joint_pos
    largest = np.abs(moved).max(axis=1)
    return {
        "policy.moved_median_rad": float(np.median(largest)),
        "policy.moved_p95_rad": float(np.percentile(largest, 95)),
        "policy.moved_share": float(
            np.median(np.linalg.norm(moved, axis=1)) / max(np.median(np.linalg.norm(step, axis=1)), 1e-9)
        ),
    }
