"""A calibrated camera: intrinsics, lens, where it is and how late, as one file that ROS reads as well."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from sim2real.errors import ConfigError
from sim2real.files import write_text
from sim2real.types import Array

Lens = Literal["pinhole", "rational", "fisheye"]

# Our lens models → ROS's names (sensor_msgs/CameraInfo) and how many coefficients they have, in OpenCV's order.
LENSES: dict[str, tuple[str, int]] = {
    "pinhole": ("plumb_bob", 5),
    "rational": ("rational_polynomial", 8),
    "fisheye": ("equidistant", 4),
}
# Other names that cameras and drivers use for ROS's models.
_ALIASES = {"": "plumb_bob", "none": "plumb_bob", "fisheye": "equidistant"}


@dataclass(frozen=True)
class CameraCalibration:
    """A calibrated camera. Frames are named by their transforms: ``T_a_b`` takes points from b to a.

    Attributes:
        width, height: px.
        matrix: K [3, 3], px; (0, 0) is the centre of the upper left pixel.
        lens: ``pinhole`` (radial k1 k2 k3, tangential p1 p2), ``rational`` (k1 to k6) or ``fisheye`` (k1 to k4).
        distortion: Coefficients [5], [8] or [4] in OpenCV's order.
        covariance: Of fx, fy, cx, cy and the distortion, [4 + D, 4 + D]; None where it is not known.
        rms_px: Root mean square of the reprojection error, on the views it was made from.
        held_out_px: The same on views it had not seen; NaN where there were too few.
        T_base_camera: Pose in the robot's base frame [4, 4], of a camera that stands still; None where not known.
        T_ee_camera: Pose in the end effector's frame [4, 4], of a camera on the hand.
        latency_s, latency_std_s: How much later than the joints an image is stamped; None where not known.
        date: Day of calibration, ISO 8601.
        name: Of the camera.
    """

    width: int
    height: int
    matrix: Array
    lens: Lens = "pinhole"
    distortion: Array = field(default_factory=lambda: np.zeros(5))
    covariance: Array | None = None
    rms_px: float = float("nan")
    held_out_px: float = float("nan")
    T_base_camera: Array | None = None
    T_ee_camera: Array | None = None
    latency_s: float | None = None
    latency_std_s: float | None = None
    date: str = ""
    name: str = "camera"

    def __post_init__(self) -> None:
        """Check shapes.

        Raises:
            ConfigError: A part has the wrong shape or is not usable.
        """
        if self.lens not in LENSES:
            raise ConfigError(f"unknown lens model '{self.lens}'; known: {', '.join(LENSES)}")
        wanted = LENSES[self.lens][1]
        if self.matrix.shape != (3, 3) or self.distortion.shape != (wanted,):
            raise ConfigError(f"a {self.lens} camera has a 3x3 matrix and {wanted} distortion coefficients")
        if not (np.isfinite(self.matrix).all() and np.isfinite(self.distortion).all() and self.matrix[0, 0] > 0):
            raise ConfigError("the camera matrix or the distortion is not usable: values must be finite, fx above 0")

    def save(self, path: Path) -> None:
        """Write YAML as ROS's ``camera_info`` files have it; what ROS does not know is under ``sim2real``."""
        extra: dict[str, Any] = {
            "lens": self.lens,
            "rms_px": float(self.rms_px),
            "held_out_px": float(self.held_out_px),
            "date": self.date,
        }
        for name in ("covariance", "T_base_camera", "T_ee_camera"):
            value = getattr(self, name)
            if value is not None:
                extra[name] = [[float(x) for x in row] for row in value]
        for name in ("latency_s", "latency_std_s"):
            if getattr(self, name) is not None:
                extra[name] = float(getattr(self, name))
        projection = np.hstack((self.matrix, np.zeros((3, 1))))
        content = {
            "image_width": int(self.width),
            "image_height": int(self.height),
            "camera_name": self.name,
            "camera_matrix": _matrix(self.matrix),
            "distortion_model": LENSES[self.lens][0],
            "distortion_coefficients": _matrix(self.distortion[None]),
            "rectification_matrix": _matrix(np.eye(3)),
            "projection_matrix": _matrix(projection),
            "sim2real": extra,
        }
        write_text(path, yaml.safe_dump(content, sort_keys=False, width=120))


def load_camera(path: Path) -> CameraCalibration:
    """Read what :meth:`CameraCalibration.save`, or ROS's ``camera_calibration``, wrote.

    Raises:
        ConfigError: The file is missing or not a camera's.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        _refuse_other_formats(path, text)
        data = yaml.safe_load(text)
        extra = data.get("sim2real", {})
        coefficients = data.get("distortion_coefficients") or {}
        lens, distortion = _lens_of(data["distortion_model"], coefficients.get("data") or (), str(path))
        parts: dict[str, Any] = {
            name: np.array(extra[name], dtype=np.float64)
            for name in ("covariance", "T_base_camera", "T_ee_camera")
            if name in extra
        }
        return CameraCalibration(
            width=int(data["image_width"]),
            height=int(data["image_height"]),
            matrix=np.array(data["camera_matrix"]["data"], dtype=np.float64).reshape(3, 3),
            lens=lens,
            distortion=distortion,
            rms_px=float(extra.get("rms_px", "nan")),
            held_out_px=float(extra.get("held_out_px", "nan")),
            latency_s=extra.get("latency_s"),
            latency_std_s=extra.get("latency_std_s"),
            date=str(extra.get("date", "")),
            name=str(data.get("camera_name", "camera")),
            **parts,
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path} is no camera calibration ({type(error).__name__}: {error}); make one with "
            "'sim2real calibrate camera'"
        ) from error


def _refuse_other_formats(path: Path, text: str) -> None:
    """Name calibrations of other tools.

    Raises:
        ConfigError: It is one.
    """
    ours = "write it as ROS's camera_info YAML (image_width, camera_matrix, distortion_model, ...), or calibrate anew"
    formats = {
        "OpenCV's own FileStorage": text.startswith("%YAML:1.0") or "!!opencv-matrix" in text,
        "a camchain of Kalibr": "camera_model:" in text and "intrinsics:" in text,
        "the output of 'ros2 topic echo'": "\nk:" in text and "\nd:" in text and "camera_matrix" not in text,
        "an ost.txt of ROS's calibrator": "[narrow_stereo]" in text or "camera matrix\n" in text,
    }
    for what, found in formats.items():
        if found:
            beside = "the ost.yaml beside it can be read" if what.startswith("an ost") else ours
            raise ConfigError(f"{path} is {what}; {beside}")


def _lens_of(model: Any, coefficients: Any, where: str) -> tuple[Lens, Array]:
    """Lens and coefficients of ROS's model: missing ones are zeros, and zeros too many are left out.

    Raises:
        ConfigError: The model is not known, or has fewer coefficients than are given.
    """
    ros = _ALIASES.get(str(model or ""), str(model))
    lens = next((own for own, (name, _) in LENSES.items() if name == ros), None)
    if lens is None:
        known = ", ".join(name for name, _ in LENSES.values())
        raise ConfigError(f"{where}: distortion model '{model}' is not known; known: {known}")
    given, wanted = np.array(coefficients, dtype=np.float64).ravel(), LENSES[lens][1]
    if given[wanted:].any() or (model == "none" and given.any()):
        most = 0 if model == "none" else wanted
        raise ConfigError(f"{where} has {len(given)} distortion coefficients that are not zero; '{model}' has {most}")
    distortion = np.zeros(wanted)
    distortion[: len(given)] = given[:wanted]
    return lens, distortion  # type: ignore[return-value]


def is_rectified(topic: str) -> bool:
    """True for a topic that image_proc's names say is without lens: ``image_rect``, ``image_rect_color``."""
    return bool(re.search(r"(^|[/_])rect(ified)?([/_]|$)", topic))


def camera_of_info(info: Any, name: str = "camera", rectified: bool = False) -> CameraCalibration:
    """The calibration in a ``sensor_msgs/CameraInfo``, of rclpy or of rosbags: only its fields are looked at.

    Binning and region of interest are as REP 104 has them: K, D and P are of the full image.

    Args:
        info: The message.
        name: Of the camera.
        rectified: The images are rectified: they have the matrix of P, and no lens.

    Raises:
        ConfigError: It is of no calibrated camera, or of a lens that is not known.
    """
    k, d, p = (getattr(info, key) if hasattr(info, key) else getattr(info, key.upper(), ()) for key in ("k", "d", "p"))
    matrix = np.array(k, dtype=np.float64).reshape(3, 3)
    if not matrix[0, 0] > 0.0:
        raise ConfigError(
            "the CameraInfo is not calibrated (K is zero); make a calibration: 'sim2real calibrate camera'"
        )
    lens, distortion = _lens_of(info.distortion_model, d, "the CameraInfo")
    if rectified:
        projection = np.array(p, dtype=np.float64)
        if projection.size != 12 or not projection[0] > 0.0:
            raise ConfigError("the images are rectified, but the CameraInfo's P is zero; use the raw images")
        matrix, lens, distortion = projection.reshape(3, 4)[:, :3].copy(), "pinhole", np.zeros(5)
    roi = getattr(info, "roi", None)
    width = (getattr(roi, "width", 0) or info.width) // max(1, getattr(info, "binning_x", 0))
    height = (getattr(roi, "height", 0) or info.height) // max(1, getattr(info, "binning_y", 0))
    for row, offset, binning in ((0, "x_offset", "binning_x"), (1, "y_offset", "binning_y")):
        factor = max(1, getattr(info, binning, 0))
        matrix[row, row] /= factor
        matrix[row, 2] = (matrix[row, 2] - getattr(roi, offset, 0) + 0.5) / factor - 0.5
    return CameraCalibration(int(width), int(height), matrix, lens, distortion, name=name)


def _matrix(values: Array) -> dict[str, Any]:
    rows, columns = values.shape
    return {"rows": rows, "cols": columns, "data": [float(x) for x in values.ravel()]}
