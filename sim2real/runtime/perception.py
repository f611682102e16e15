"""Perception on the robot: a bundle with a network that finds one object in images. NumPy and onnxruntime only.

A bundle is a folder::

    manifest.json    kind, format version, SHA-256 of every file
    spec.json        PerceptionSpec: camera, object, where answers lie
    provenance.json  commit, configuration, versions, figures
    network.onnx     uint8 RGB image [N, H, W, 3] → place, std [N, 2] m
    golden.npz       images and what the network said of them where it was exported
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from sim2real.errors import BundleError, SpecError
from sim2real.runtime.bundle_files import (
    Golden,
    pack_arrays,
    parse_model,
    parse_provenance,
    read_files,
    unpack_arrays,
    write_files,
)
from sim2real.runtime.camera import CameraCalibration
from sim2real.runtime.golden import StageReport, VerifyReport
from sim2real.runtime.policy import onnx_session
from sim2real.types import Array, Image, Model

KIND = "sim2real.perception_bundle"
FORMAT_VERSION = 1
FILES = ("spec.json", "provenance.json", "network.onnx", "golden.npz")
TOLERANCE_M = 1e-4  # convolutions of other processors round differently; a camera sees nothing of it
DARKEST, BRIGHTEST, FLATTEST = 4.0, 251.0, 2.0  # mean and spread of an image that can be used, of 255


class PerceptionSpec(Model):
    """Input and output of a perception network.

    Attributes:
        robot: In whose base frame answers are.
        object: What it finds, in words.
        width, height: Of its images, px.
        matrix: K [3, 3] of its images, px; they have no lens distortion.
        T_base_camera: Where the camera stood by its calibration [4, 4].
        height_m: Of the object's centre above the base plane: the z of every answer.
        area: x from and to, y from and to, m: where the object was in training. Elsewhere answers are guesses.
    """

    robot: str
    object: str
    width: int = Field(ge=16)
    height: int = Field(ge=16)
    matrix: tuple[tuple[float, float, float], ...]
    T_base_camera: tuple[tuple[float, float, float, float], ...]
    height_m: float
    area: tuple[float, float, float, float]

    @model_validator(mode="after")
    def _shapes(self) -> PerceptionSpec:
        if len(self.matrix) != 3 or len(self.T_base_camera) != 4:
            raise ValueError("'matrix' has 3 rows and 'T_base_camera' 4")
        return self

    def camera(self) -> CameraCalibration:
        """The camera whose images the network takes."""
        pose = np.array(self.T_base_camera)
        return CameraCalibration(self.width, self.height, np.array(self.matrix), T_base_camera=pose)


@dataclass(frozen=True)
class Sighting:
    """An object in an image.

    Attributes:
        position: Of its centre [3] m in the base frame.
        std: Standard deviation of x and y [2] m, as the network gives it.
    """

    position: Array
    std: Array

    @property
    def uncertainty_m(self) -> float:
        """The larger standard deviation, m."""
        return float(self.std.max())


class Locator:
    """Finds the object in images.

    Args:
        spec: Of the network.
        network: ONNX.
    """

    def __init__(self, spec: PerceptionSpec, network: bytes) -> None:
        self.spec = spec
        self._session = onnx_session(network)

    def locate(self, image: Image) -> Sighting:
        """Find the object in an RGB image [H, W, 3].

        Raises:
            SpecError: Another size or type, or the network's answer is not finite.
        """
        wanted = (self.spec.height, self.spec.width, 3)
        if image.shape != wanted or image.dtype != np.uint8:
            raise SpecError(
                f"the network takes uint8 images {list(wanted)}, got {image.dtype} {list(image.shape)}; bring it to "
                "the camera of spec.json first"
            )
        place, std = self._session.run(["place", "std"], {"image": image[None]})
        if not (np.isfinite(place).all() and np.isfinite(std).all()):
            raise SpecError("the network's answer is not finite; verify the bundle with 'sim2real verify'")
        position = np.array([*place[0], self.spec.height_m], dtype=np.float64)
        return Sighting(position, std[0].astype(np.float64))


class PerceptionBundle:
    """A checked bundle; make one with :meth:`load`.

    Attributes:
        path: The folder.
        spec: What the network sees and says.
        provenance: Where it comes from.
    """

    def __init__(self, path: Path, files: dict[str, bytes]) -> None:
        self.path, self._files = path, files
        self.spec = parse_model(PerceptionSpec, files["spec.json"], "spec.json")
        self.provenance = parse_provenance(files["provenance.json"])

    @classmethod
    def load(cls, path: Path | str) -> PerceptionBundle:
        """Read and check a bundle; nothing in it is executed or unpickled.

        Raises:
            BundleError: What is missing, altered, unlisted, unreadable or inconsistent, and what to do.
        """
        path = Path(path)
        bundle = cls(path, read_files(path, KIND, FORMAT_VERSION, FILES))
        try:
            session = onnx_session(bundle._files["network.onnx"])
        except Exception as error:
            raise BundleError(f"network.onnx is not a network that onnxruntime can load: {error}") from error
        spec = bundle.spec
        inputs = {node.name: (node.type, node.shape[1:]) for node in session.get_inputs()}
        outputs = {node.name: node.shape[1:] for node in session.get_outputs()}
        wanted = {"image": ("tensor(uint8)", [spec.height, spec.width, 3])}
        if inputs != wanted or outputs != {"place": [2], "std": [2]}:
            raise BundleError(
                f"network.onnx takes {inputs} and gives {outputs}; spec.json asks for {wanted}, place [2] and std [2]; "
                "the network belongs to another bundle, export the run again"
            )
        return bundle

    def locator(self) -> Locator:
        """The network with its input size."""
        return Locator(self.spec, self._files["network.onnx"])

    def golden(self) -> Golden:
        """Images [G, H, W, 3] and the recorded place and std [G, 2].

        Raises:
            BundleError: Something of it is missing or has another shape or type.
        """
        golden = unpack_arrays(self._files["golden.npz"])
        spec = self.spec
        count = len(golden.get("image", ()))
        shapes = {"image": (count, spec.height, spec.width, 3), "place": (count, 2), "std": (count, 2)}
        kinds = {"image": np.uint8, "place": np.float32, "std": np.float32}
        for name, shape in shapes.items():
            array = golden.get(name)
            if not count or array is None or array.shape != shape or array.dtype != kinds[name]:
                raise BundleError(f"golden.npz: '{name}' must be {np.dtype(kinds[name])} {shape}; export the run again")
        return golden


def write_perception_bundle(
    path: Path,
    spec: PerceptionSpec,
    provenance: Mapping[str, Any],
    network: bytes,
    golden_images: Image,
    replace: bool = False,
) -> Path:
    """Run ``network`` over ``golden_images`` [G, H, W, 3], and write everything as a bundle.

    Raises:
        BundleError: ``path`` exists and ``replace`` is not set, or the parts do not fit together.
    """
    locator = Locator(spec, network)
    seen = [locator.locate(image) for image in golden_images]
    golden: Golden = {
        "image": golden_images,
        "place": np.array([sighting.position[:2] for sighting in seen], dtype=np.float32),
        "std": np.array([sighting.std for sighting in seen], dtype=np.float32),
    }
    files = {
        "spec.json": spec.model_dump_json(indent=1).encode(),
        "provenance.json": json.dumps(provenance, indent=1).encode(),
        "network.onnx": network,
        "golden.npz": pack_arrays(golden),
    }
    return write_files(path, KIND, FORMAT_VERSION, files, PerceptionBundle.load, replace)


def verify_perception(bundle: PerceptionBundle) -> VerifyReport:
    """Find the object in the golden images again; answers may differ by 0.1 mm."""
    golden, locator = bundle.golden(), bundle.locator()
    seen = [locator.locate(image) for image in golden["image"]]
    stages = []
    for name, got in (("place", [s.position[:2] for s in seen]), ("std", [s.std for s in seen])):
        difference = np.abs(np.array(got) - golden[name]).max(axis=1)
        worst = int(difference.argmax())
        message = f"image {worst}: '{name}' differs by {difference[worst]:.2e} m from where the bundle was exported"
        ok = bool(difference[worst] <= TOLERANCE_M)
        stages.append(StageReport(f"network, {name}", float(difference[worst]), TOLERANCE_M, "" if ok else message))
    return VerifyReport(tuple(stages))


def unusable(image: Image) -> str:
    """Why nothing can be seen in an image [H, W, 3]; empty where something can."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        return f"it is {image.dtype} {list(image.shape)}, uint8 [H, W, 3] is wanted"
    mean, spread = float(image.mean()), float(image.std())
    if mean < DARKEST:
        return f"it is black (mean {mean:.1f} of 255): is the lens covered, or the exposure too short?"
    if mean > BRIGHTEST:
        return f"it is white (mean {mean:.1f} of 255): the exposure is too long"
    if spread < FLATTEST:
        return f"it is one colour (spread {spread:.1f} of 255): is the camera running?"
    return ""


def table_homography(camera: CameraCalibration, height_m: float) -> Array:
    """[3, 3] from pixels (column, row, 1) to points (x, y, 1) m of the plane z = ``height_m`` of the base frame.

    Scaled so that the third part is 1 at the middle of the image.

    Raises:
        SpecError: The camera's pose is not known.
    """
    if camera.T_base_camera is None:
        raise SpecError("the camera's calibration does not say where it stands; run 'sim2real calibrate hand-eye'")
    turn, place = camera.T_base_camera[:3, :3], camera.T_base_camera[:3, 3]
    rays = turn @ np.linalg.inv(camera.matrix)  # of (column, row, 1), base frame
    # place + s ray has z = height: s = (height - place_z) / ray_z; times ray_z everything is linear in the pixel.
    result = np.empty((3, 3))
    result[:2] = place[:2, None] * rays[2] + (height_m - place[2]) * rays[:2]
    result[2] = rays[2]
    middle = np.array([0.5 * (camera.width - 1), 0.5 * (camera.height - 1), 1.0])
    return result / (result[2] @ middle)
