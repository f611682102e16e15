"""From a localization configuration to a perception bundle: render, train, measure, export."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import cv2
import numpy as np

from sim2real.config import prepare_run
from sim2real.errors import ConfigError
from sim2real.files import lock_folder, write_text
from sim2real.images.dataset import digest
from sim2real.images.pictures import contact_sheet
from sim2real.perceive.adapt import adapt_dataset
from sim2real.perceive.config import LocalizeConfig, area_of
from sim2real.perceive.export import export_localizer
from sim2real.perceive.labelled import load_labelled, load_real_images
from sim2real.perceive.measure import calibrate
from sim2real.perceive.render import looking_through, render_dataset
from sim2real.perceive.teacher import load_unlabelled
from sim2real.perceive.trainer import Trainer
from sim2real.provenance import provenance
from sim2real.runtime.camera import CameraCalibration
from sim2real.runtime.perception import PerceptionSpec, write_perception_bundle
from sim2real.runtime.translation import Translator, file_hashes
from sim2real.types import Image, Progress

log = logging.getLogger(__name__)


GOLDEN_IMAGES = 8
PACKAGES = ("torch", "kornia", "pybullet", "numpy", "onnxruntime")
_SHEET = 48
_LEAST_BELIEVED = 0.2  # fraction of real images without labels in which a teacher finds the object for sure


def train(config: LocalizeConfig, run_dir: Path, on_progress: Progress) -> Path | None:
    """Train the configured localizer and export it; continues an earlier run of the same configuration.

    Args:
        config: The experiment.
        run_dir: Folder of the run: configuration, images (as rendered, and adapted), contact sheet, checkpoint,
            TensorBoard events, history, bundle.
        on_progress: Called while it renders, and after every epoch.

    Returns:
        The bundle's path, or None when Ctrl-C ended it early (what is done is kept).

    Raises:
        ConfigError: The folder holds a run of another configuration or one that has learned from other images,
            ``adapted`` is no finished adaptation, ``labelled`` no labelled dataset of the camera's images, or
            ``unlabelled`` holds too few images, or renders.
        AdaptationError: The gate refused the adaptation, or it is for images of another size.
        SimulationError: Training diverged.
    """
    with lock_folder(run_dir):
        prepare_run(config, run_dir)
        return _train(config, run_dir, on_progress)


def _train(config: LocalizeConfig, run_dir: Path, on_progress: Progress) -> Path | None:
    camera = looking_through(config)
    if config.adapted is not None:  # what is wrong with it is said at once, not after hours of drawing
        Translator(config.adapted).need_size(camera.height, camera.width)
    labelled = None if config.labelled is None else load_real_images(config.labelled, config, camera)
    unlabelled = None if config.unlabelled is None else load_unlabelled(config.unlabelled, camera.height, camera.width)
    count, folder = config.render.images, run_dir / "images"
    if render_dataset(config, folder, count, on_progress) < count:
        return None
    everything = load_labelled(folder, count)
    if unlabelled is not None:
        _check_unlabelled(unlabelled, everything.images, config.unlabelled)
    if config.adapted is not None:
        rendered, folder = folder, run_dir / "adapted"
        if adapt_dataset(config.adapted, rendered, folder, count, config.unadapted, on_progress) < count:
            return None
        everything = load_labelled(folder, count)
    _write_sheet(run_dir / "contact_sheet.png", everything.images[:_SHEET])
    trained_on, held_out = (
        everything.rows(slice(0, -config.render.held_out)),
        everything.rows(slice(-config.render.held_out, None)),
    )
    origins = {} if config.adapted is None else {f"adapted: {k}": v for k, v in file_hashes(config.adapted).items()}
    for name, images in (("labelled", None if labelled is None else labelled.images), ("unlabelled", unlabelled)):
        if images is not None:
            origins[name] = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    trainer = Trainer(config, run_dir, camera, origins, unlabelled)
    trainer.load()
    if not trainer.train(trained_on, held_out, on_progress, labelled):
        return None
    believed = trainer.history[-1].get("photographs_believed", 1.0)
    if believed < _LEAST_BELIEVED:
        log.warning(
            "the object was found for sure in %.0f %% of the real images of %s only, and the others taught nothing: is "
            "it in them, as this camera sees it, and was training long enough?", 100.0 * believed, config.unlabelled,
        )  # fmt: skip
    factor, figures = calibrate(trainer.network, held_out, config.seed)
    trainer.network.std_factor = factor
    write_text(run_dir / "history.json", json.dumps({"epochs": trainer.history, "held_out": figures}, indent=1))
    golden = held_out.images[:GOLDEN_IMAGES]
    bundle = write_perception_bundle(
        run_dir / "bundle",
        spec_of(config, trainer.camera),
        provenance(config, PACKAGES, {"held_out_renders": figures, "learned_from": origins}),
        export_localizer(trainer.network, golden),
        golden,
        replace=True,
    )
    return bundle


def _check_unlabelled(unlabelled: Image, rendered: Image, folder: Path | None) -> None:
    """Refuse renders that are given as real images."""
    shared = len({digest(image) for image in unlabelled} & {digest(image) for image in rendered})
    if shared:
        raise ConfigError(
            f"{shared} images of {folder} (unlabelled) are among the renders, which are no real images; give images of "
            "the real camera"
        )


def spec_of(config: LocalizeConfig, camera: CameraCalibration) -> PerceptionSpec:
    """Make the specification of the experiment's network."""
    assert camera.T_base_camera is not None
    target = config.object
    colour = "any colour" if target.hue is None else f"hue {target.hue[0]:g} to {target.hue[1]:g}"
    radius = " to ".join(f"{1000 * r:g}" for r in target.radius_m)
    return PerceptionSpec(
        robot=config.robot,
        object=f"{target.kind}, radius {radius} mm, height {1000 * target.height_m:g} mm, {colour}",
        width=camera.width,
        height=camera.height,
        matrix=tuple(tuple(row) for row in camera.matrix.tolist()),
        T_base_camera=tuple(tuple(row) for row in camera.T_base_camera.tolist()),
        height_m=0.5 * target.height_m,
        area=area_of(target),
    )


def _write_sheet(path: Path, images: Image) -> None:
    temporary = path.with_name("contact_sheet.tmp.png")
    cv2.imwrite(str(temporary), contact_sheet(list(images), 12)[..., ::-1])
    temporary.replace(path)
