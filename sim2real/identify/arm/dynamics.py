"""Torques of an arm's rigid bodies, linear in their inertial parameters, and parameters that a body can have.

A body is a link on a moving joint with everything that is fixed to it. Its ten parameters are mass, mass times centre
of mass, and the tensor about the link's origin: m, hx, hy, hz, Ixx, Ixy, Iyy, Ixz, Iyz, Izz in the link's frame
(Atkeson, An and Hollerbach 1986, "Estimation of Inertial Parameters of Manipulator Loads and Links").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim2real.robots.weights import GRAVITY, WeighedChain
from sim2real.types import Array

THINNEST = 0.1  # of its greatest width; the width of a body whose tensor leaves it none
_PLACES = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))  # of the tensor's six numbers


@dataclass(frozen=True)
class Body:
    """A part of the arm that moves as one piece.

    Attributes:
        link: The moving joint's child, in whose frame the parameters are.
        parts: Links with mass that belong to it.
        parameters: [10] of the description.
    """

    link: str
    parts: tuple[str, ...]
    parameters: Array


def bodies_of(chain: WeighedChain) -> list[Body]:
    """Bodies of an arm from the base outwards; what is bolted to the base is none."""
    frames = chain.frames(np.zeros((1, len(chain.joint_names))))
    carrier = carriers(chain)
    bodies = []
    for name in dict.fromkeys(carrier.values()):
        if name == chain.root:
            continue
        (origin, rotation), total, parts = frames[name], np.zeros((4, 4)), []
        for part, on in carrier.items():
            link = chain.links[part]
            if on != name or link.mass == 0.0:
                continue
            place, turned = frames[part]
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotation[0].T @ turned[0], rotation[0].T @ (place - origin)[0]
            tensor = (link.axes * link.inertia) @ link.axes.T
            own = pseudo_inertia(link.mass, link.com, tensor)
            total += pose @ own @ pose.T
            parts.append(part)
        bodies.append(Body(name, tuple(parts), parameters_of(total)))
    return bodies


def carriers(chain: WeighedChain) -> dict[str, str]:
    """The link, on a moving joint or the root, to which every link is fixed."""
    carrier = {chain.root: chain.root}
    for joint in chain.joints:
        carrier[joint.child] = joint.child if joint.moves else carrier[joint.parent]
    return carrier


def pseudo_inertia(mass: float, com: Array, tensor: Array) -> Array:
    """Second moments of mass [4, 4] of a body with a tensor [3, 3] about its centre of mass [3]."""
    about = 0.5 * np.trace(tensor) * np.eye(3) - tensor
    first = mass * com
    return np.block([[about + mass * np.outer(com, com), first[:, None]], [first[None], np.array([[mass]])]])


def parameters_of(pseudo: Array) -> Array:
    """Ten parameters [..., 10] of pseudo-inertias [..., 4, 4]."""
    second = pseudo[..., :3, :3]
    tensor = np.trace(second, axis1=-2, axis2=-1)[..., None, None] * np.eye(3) - second
    return np.stack([pseudo[..., 3, 3], *np.moveaxis(pseudo[..., :3, 3], -1, 0)]
                    + [tensor[..., i, j] for i, j in _PLACES], axis=-1)  # fmt: skip


def pseudo_of(parameters: Array) -> Array:
    """Pseudo-inertia [4, 4] of ten parameters."""
    tensor = np.empty((3, 3))
    for value, (i, j) in zip(parameters[4:], _PLACES, strict=True):
        tensor[i, j] = tensor[j, i] = value
    result = np.empty((4, 4))
    result[:3, :3] = 0.5 * np.trace(tensor) * np.eye(3) - tensor
    result[:3, 3] = result[3, :3] = parameters[1:4]
    result[3, 3] = parameters[0]
    return result


def factor_of(pseudo: Array) -> Array:
    """Upper triangular U [4, 4] with U Uᵀ a pseudo-inertia, after a flat body has been given some thickness."""
    mass, first = pseudo[3, 3], pseudo[:3, 3]
    spread, axes = np.linalg.eigh(pseudo[:3, :3] - np.outer(first, first) / mass)
    second = (axes * np.maximum(spread, THINNEST**2 * spread[2])) @ axes.T + np.outer(first, first) / mass
    whole = np.block([[second, first[:, None]], [first[None], np.array([[mass]])]])
    return np.linalg.cholesky(whole[::-1, ::-1])[::-1, ::-1]


def consistent(factors: Array, theta: Array) -> Array:
    """Parameters [B, 10] that bodies can have, for any coordinates [B, 10]; zero gives the description's.

    Log-Cholesky coordinates (Rucker and Wensing 2022, "Smooth Parameterization of Rigid-Body Inertia") on top of the
    description's own factor, so that they are numbers without a unit in no one's frame. They keep the pseudo-inertia
    positive definite, which is what makes a tensor with its mass that of a body (Wensing, Kim and Slotine 2018).

    Args:
        factors: Of :func:`factor_of`, by body [B, 4, 4].
        theta: Logarithms of size and of three widths, three shears, three shifts; a mass grows with exp(2 size).
    """
    upper = np.zeros((len(theta), 4, 4))
    for axis in range(3):
        upper[:, axis, axis] = np.exp(theta[:, 1 + axis])
        upper[:, axis, 3] = theta[:, 7 + axis]
    upper[:, 0, 1], upper[:, 1, 2], upper[:, 0, 2] = theta[:, 4], theta[:, 5], theta[:, 6]
    upper[:, 3, 3] = 1.0
    root = factors @ (np.exp(theta[:, :1, None]) * upper)
    return parameters_of(root @ root.transpose(0, 2, 1))


def regressor(chain: WeighedChain, bodies: list[Body], q: Array, dq: Array, ddq: Array) -> Array:
    """Matrix Y [N, J, 10 B] with torques Y π that the bodies ask of every joint, z upwards.

    Velocities and accelerations go from the base outwards, wrenches straight to every joint that carries the body.

    Args:
        chain: The arm.
        bodies: Of :func:`bodies_of`.
        q: [N, J] rad.
        dq: rad/s.
        ddq: rad/s².
    """
    count, frames = len(q), chain.frames(q)
    zero = np.zeros((count, 3))
    rate, turning, rising = {chain.root: zero}, {chain.root: zero}, {chain.root: zero + GRAVITY * np.eye(3)[2]}
    carrying: dict[str, list[tuple[str, int, float, bool]]] = {chain.root: []}
    for joint in chain.joints:
        above, link = joint.parent, joint.child
        arm = frames[link][0] - frames[above][0]
        w, a = rate[above], turning[above]
        rate[link], turning[link] = w, a
        rising[link] = rising[above] + np.cross(a, arm) + np.cross(w, np.cross(w, arm))
        carrying[link] = carrying[above]
        if joint.moves:
            column, factor, _ = chain.columns[joint.name]
            axis, slides = frames[link][1] @ joint.axis, joint.kind == "prismatic"
            speed, push = factor * dq[:, column, None] * axis, factor * ddq[:, column, None] * axis
            if slides:
                rising[link] = rising[link] + push + 2.0 * np.cross(w, speed)
            else:
                rate[link], turning[link] = w + speed, a + push + np.cross(w, speed)
            carrying[link] = [*carrying[above], (joint.name, column, factor, slides)]
    axes = {joint.name: (frames[joint.child][0], frames[joint.child][1] @ joint.axis) for joint in chain.joints}
    result = np.zeros((count, len(chain.joint_names), 10 * len(bodies)))
    for index, body in enumerate(bodies):
        origin, rotation = frames[body.link]
        inward = rotation.transpose(0, 2, 1)
        w, a, up = ((inward @ value[body.link][:, :, None])[:, :, 0] for value in (rate, turning, rising))
        force, moment = np.zeros((count, 3, 10)), np.zeros((count, 3, 10))
        force[:, :, 0] = up
        force[:, :, 1:4] = _cross(a) + _cross(w) @ _cross(w)
        moment[:, :, 1:4] = -_cross(up)
        moment[:, :, 4:] = _times_tensor(a) + _cross(w) @ _times_tensor(w)
        force, moment = rotation @ force, rotation @ moment
        for name, column, factor, slides in carrying[body.link]:
            place, axis = axes[name]
            whole = force if slides else moment + _cross(origin - place) @ force
            result[:, column, 10 * index : 10 * index + 10] += factor * (axis[:, None] @ whole)[:, 0]
    return result


def _cross(vector: Array) -> Array:
    """Matrices [N, 3, 3] that take the cross product from the left."""
    x, y, z = vector.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)


def _times_tensor(vector: Array) -> Array:
    """Matrices [N, 3, 6] that multiply six numbers of a tensor: tensor times vector."""
    x, y, z = vector.T
    zero = np.zeros_like(x)
    rows = [x, y, zero, z, zero, zero, zero, x, y, zero, z, zero, zero, zero, zero, x, y, z]
    return np.stack(rows, axis=-1).reshape(-1, 3, 6)
