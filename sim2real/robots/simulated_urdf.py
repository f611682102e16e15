"""The URDF that simulators load: what :class:`WeighedChain` makes of a description, in words every parser knows."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

from sim2real.robots.weights import WeighedChain

# Simulators want a mass on every link; this one moves nothing.
_FRAME_KG, _FRAME_INERTIA = 1e-6, (1e-9, 1e-9, 1e-9)
_MESHES = (".obj", ".stl", ".dae")  # what Bullet reads


def simulated_urdf(chain: WeighedChain, meshes: bool = True) -> tuple[str, str]:
    """Write a chain's description for simulators.

    Links without mass get a negligible one, continuous joints limits, and meshes their full path. ``mimic`` is left
    out, since each simulator couples joints in its own way.

    Args:
        chain: The chain.
        meshes: Keep meshes; they are left out where there is no such file.

    Returns:
        The URDF, and a sentence about missing meshes, empty where none is missing.
    """
    root = deepcopy(chain.xml)
    root.set("name", root.get("name") or chain.urdf.stem)  # Bullet wants one
    for element in root.findall("link"):
        name = element.get("name", "")
        if name in chain.rewritten:
            for old in element.findall("inertial"):
                element.remove(old)
            link = chain.links[name]
            mass, moments = (link.mass, link.inertia.tolist()) if link.mass else (_FRAME_KG, _FRAME_INERTIA)
            inertial = ET.SubElement(element, "inertial")
            ET.SubElement(inertial, "origin", xyz=" ".join(map(repr, link.com.tolist())))
            ET.SubElement(inertial, "mass", value=repr(mass))
            ET.SubElement(inertial, "inertia", dict(zip(("ixx", "iyy", "izz"), map(repr, moments), strict=True)))
        for tensor in element.findall("inertial/inertia"):
            for key in ("ixy", "ixz", "iyz"):  # MuJoCo wants them
                tensor.set(key, tensor.get(key, "0"))
    joints = {joint.name: joint for joint in chain.joints}
    for element in root.findall("joint"):
        joint = joints[element.get("name", "")]
        for mimic in element.findall("mimic"):
            element.remove(mimic)
        if joint.moves:
            element.set("type", joint.kind)
            limit = element.find("limit")
            limit = ET.SubElement(element, "limit", effort="0", velocity="0") if limit is None else limit
            low, high = chain.range_of(joint)
            limit.set("lower", repr(low))
            limit.set("upper", repr(high))
    missing = _resolve_meshes(root, chain.urdf, meshes)
    return ET.tostring(root, encoding="unicode"), missing


def _resolve_meshes(root: ET.Element, urdf: Path, keep: bool) -> str:
    """Give every mesh its full path, and take out those that cannot be loaded."""
    lost: dict[str, str] = {}
    looked: dict[Path, None] = {}
    for link in root.findall("link"):
        for shape in [*link.findall("visual"), *link.findall("collision")]:
            mesh = shape.find("geometry/mesh")
            if mesh is None:
                continue
            written = mesh.get("filename", "")
            places = list(_candidates(written, urdf))
            found = next((place for place in places if place.is_file()), None)
            if found is None:
                lost[written] = "not found"
                looked.update(dict.fromkeys(place.parent for place in places))
            elif found.suffix.lower() not in _MESHES:
                lost[written] = f"cannot be read: {', '.join(_MESHES)} can"
            if keep and found is not None and written not in lost:
                mesh.set("filename", str(found.resolve()))
            else:
                link.remove(shape)
    if not lost or not keep:
        return ""
    listed = ", ".join(f"'{name}' ({why})" for name, why in lost.items())
    where = f"; looked in {', '.join(map(str, looked))}" if looked else ""
    return f"{urdf} goes on without meshes, which pictures and contacts then lack: {listed}{where}"


def _candidates(written: str, urdf: Path) -> Iterator[Path]:
    """List where a mesh may be: as ROS, Bullet and people who copy folders have it."""
    scheme, colon, rest = written.partition("://")
    if not colon or scheme == "file":
        path = Path(rest if colon else written)
        yield from [path] if path.is_absolute() else [folder / path for folder in urdf.resolve().parents]
        return
    package, _, inside = rest.partition("/")
    for folder in urdf.resolve().parents:
        if folder.name == package:
            yield folder / inside
        yield folder / package / inside
    yield urdf.resolve().parent / inside
    for variable, below in (("ROS_PACKAGE_PATH", ""), ("AMENT_PREFIX_PATH", "share")):
        for prefix in filter(None, os.environ.get(variable, "").split(os.pathsep)):
            yield Path(prefix) / below / package / inside
