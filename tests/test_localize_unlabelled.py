"""Localizers that learn from photographs without labels, and errors without the camera calibration's part."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("kornia", reason="perception needs sim2real[vision]")

from perception_bundles import HEIGHT_M, camera, make_red_bundle
from typer.testing import CliRunner

from calibration.dataset import DatasetWriter
from calibration.lens import project
from sim2real.cli import app
from sim2real.config import read_settings, validate
from sim2real.errors import AdaptationError, ConfigError
from sim2real.evaluate.localization import at_true_poses, locate_all
from sim2real.perceive.augment import Augmentation
from sim2real.perceive.config import LocalizeConfig, TeacherConfig
from sim2real.perceive.network import Localizer
from sim2real.perceive.render import looking_through, render_dataset
from sim2real.perceive.teacher import Teacher, moved
from sim2real.perceive.train import Labelled, Trainer, load_labelled, train
from sim2real.perception import PerceptionBundle

SMALL = (
    "render.images=48", "render.held_out=16", "render.workers=1", "render.textures=10", "localizer.width=4",
    "localizer.batch_size=8", "localizer.epochs=2", "teacher.confidence=0", "teacher.starts=0",
)  # fmt: skip


def quiet(*_: object) -> None:
    pass


def config(*overrides: str) -> LocalizeConfig:
    return validate(LocalizeConfig, *read_settings("so101_localize", (*SMALL, *overrides)))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "images"
    render_dataset(config(), folder, 48, quiet)
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of another size, as a telephone leaves it."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for index in range(20):
        image = cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (320, 240))
        cv2.imwrite(str(folder / f"{index}.jpg"), image)
    return folder


class Spotter(Localizer):
    """Knows the brightest cell."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        cells = torch.nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), 4)
        return images, images, torch.log_softmax(40.0 * cells.flatten(1), dim=1)


def spotter() -> Spotter:
    return Spotter(torch.eye(3), 4, (64, 64), (0.0, 1.0, 0.0, 1.0))


def spots(places: np.ndarray) -> np.ndarray:
    """Dark images [N, 64, 64, 3] with a bright spot of 4 px, whose upper left corner is at columns and rows [N, 2]."""
    images = np.zeros((len(places), 64, 64, 3), np.uint8)
    for image, (u, v) in zip(images, places, strict=True):
        image[v : v + 4, u : u + 4] = 255
    return images


def test_images_move_by_whole_pixels():
    image = torch.arange(48.0).reshape(1, 1, 6, 8).repeat(2, 1, 1, 1)
    there = moved(image, torch.tensor([[2, 0], [0, -3]]))
    torch.testing.assert_close(there[0, 0, :, 2:], image[0, 0, :, :-2])
    torch.testing.assert_close(there[0, 0, :, 0], image[0, 0, :, 0])  # the border, repeated
    torch.testing.assert_close(there[1, 0, :-3], image[1, 0, 3:])


def test_the_teacher_says_where_the_moved_object_is():
    places = np.random.default_rng(1).integers(16, 44, (40, 2))
    teacher = Teacher(spotter(), TeacherConfig(shift_px=8, starts=0.3, share=0.5, confidence=0.2), spots(places))
    rng = np.random.default_rng(2)
    assert teacher.lesson(80, 0.3, rng, Augmentation({})) is None
    lesson = teacher.lesson(80, 0.35, rng, Augmentation({}))
    assert lesson is not None and lesson.images.shape == (40, 3, 64, 64) and lesson.weight == pytest.approx(0.5)
    bright = lesson.images.mean(dim=1) > 0.5
    middles = torch.stack([torch.nonzero(spot).float().mean(dim=0).flip(0) for spot in bright])
    assert float((lesson.pixels - middles).abs().max()) < 2.1  # its cells are 4 px
    assert float((lesson.pixels - middles).mean(dim=0).abs().max()) < 0.6
    assert lesson.sure.all()
    assert len({tuple(m) for m in middles.tolist()}) > 35  # each at a place of its own


def test_what_the_teacher_is_not_sure_of_does_not_count():
    two = np.maximum(spots(np.full((20, 2), 12)), spots(np.full((20, 2), 44)))
    lesson = Teacher(spotter(), TeacherConfig(confidence=0.8), two).lesson(
        40, 1.0, np.random.default_rng(0), Augmentation({})
    )
    assert lesson is not None and not lesson.sure.any()


def test_the_average_follows_slowly():
    torch.manual_seed(0)
    student = Localizer(torch.eye(3), 4, (64, 64), (0.0, 1.0, 0.0, 1.0))
    teacher = Teacher(student, TeacherConfig(average=0.9), spots(np.full((20, 2), 20)))
    before = student.map.bias.detach().clone()
    with torch.no_grad():
        student.map.bias += 1.0
    teacher.follow(student, 1000)
    torch.testing.assert_close(teacher.average.map.bias, before + 0.1)
    assert not teacher.average.training


def test_agreement_teaches_and_does_not_reach_the_renders(rendered: Path, tmp_path: Path):
    """With every photograph alike and one pixel believed, the network learns that pixel and the renders still count."""
    settings = config("localizer.augment=[]", "localizer.learning_rate=0.01")
    shown = load_labelled(rendered).images[:1].repeat(20, axis=0)
    trainer = Trainer(settings, tmp_path, looking_through(settings), unlabelled=shown)
    data = load_labelled(rendered).rows(slice(0, 32))
    assert trainer.teacher is not None
    first = trainer._epoch(data, None, 0)
    assert {"agreement", "photographs_believed"} <= set(first) and first["photographs_believed"] == 1.0
    lessons = [trainer.teacher.lesson(8, 1.0, np.random.default_rng(i), Augmentation({})) for i in range(30)]
    figures = [trainer._step(torch.rand(8, 3, 128, 128), rows_of(data, 8), lesson) for lesson in lessons]
    assert figures[-1]["agreement"] < 0.8 * figures[0]["agreement"]


def rows_of(data: Labelled, count: int) -> Labelled:
    return data.rows(slice(0, count))


def test_a_stopped_training_goes_on_with_its_teacher(photographs: Path, rendered: Path, tmp_path: Path):
    settings = config(f"unlabelled={photographs}")
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "images").symlink_to(rendered)

    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if stage == "training" and done == 1:
            raise KeyboardInterrupt

    bundle = train(settings, tmp_path / "whole", quiet)
    assert bundle is not None
    assert train(settings, tmp_path / "stopped", stop) is None
    assert train(settings, tmp_path / "stopped", quiet) is not None
    one, other = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True) for n in ("whole", "stopped"))
    for part in ("network", "teacher"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])
    # And without photographs it would have become another network.
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "images").symlink_to(rendered)
    assert train(config(), tmp_path / "without", quiet) is not None
    without = torch.load(tmp_path / "without" / "checkpoint.pt", weights_only=True)["network"]
    assert not all(torch.equal(one["network"][name], without[name]) for name in without)
    # Other photographs in the same folder are not taken for those it has learned from.
    assert "unlabelled" in PerceptionBundle.load(bundle).provenance["metrics"]["learned_from"]
    (photographs / "0.jpg").unlink()
    with pytest.raises(ConfigError, match=r"other images than there are now \(unlabelled\)"):
        train(settings, tmp_path / "whole", quiet)


def test_too_few_photographs_are_refused_before_anything_is_drawn(tmp_path: Path):
    folder = tmp_path / "few"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(AdaptationError, match=r"few \(unlabelled\) has 1 usable"):
        train(config(f"unlabelled={folder}"), tmp_path / "run", quiet)
    assert not (tmp_path / "run" / "images").exists()


def test_errors_at_the_true_pose_leave_the_calibration_out(tmp_path: Path):
    bundle = PerceptionBundle.load(make_red_bundle(tmp_path / "red"))
    eye = camera()
    rng = np.random.default_rng(3)
    with DatasetWriter(tmp_path / "data", eye.width, eye.height) as writer:
        for _ in range(6):
            pose = eye.T_base_camera.copy()
            pose[:3, 3] += rng.normal(0.0, 0.01, 3)
            where = np.array([rng.uniform(0.25, 0.35), rng.uniform(-0.08, 0.08), HEIGHT_M])
            u, v = project(eye, where[None], np.linalg.inv(pose))[0]
            rows, columns = np.mgrid[: eye.height, : eye.width]
            image = np.full((eye.height, eye.width, 3), 60, np.uint8)
            image[np.hypot(columns - u, rows - v) < 4.0] = (220, 30, 30)
            writer.add(image, object_pos=where, T_base_camera=pose)
    from calibration.dataset import read_dataset

    data = read_dataset(tmp_path / "data")
    places, _, truth = locate_all(bundle.locator(), data)
    known = at_true_poses(places, bundle.spec, data.column("T_base_camera"))
    before, after = (np.linalg.norm(p - truth, axis=1).mean() for p in (places, known))
    assert before > 0.005 and after < 0.4 * before
    same = at_true_poses(places, bundle.spec, np.tile(eye.T_base_camera, (6, 1, 1)))
    np.testing.assert_allclose(same, places, atol=1e-9)
    said = CliRunner().invoke(app, ["locate", str(tmp_path / "red"), str(tmp_path / "data")])
    assert said.exit_code == 0 and "mean_error_at_true_pose" in said.output
