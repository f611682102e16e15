"""Localizers that learn from photographs without labels, and errors without the camera calibration's part."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("kornia", reason="perception needs sim2real[vision]")

from perception_bundles import HEIGHT_M, camera, make_red_bundle
from typer.testing import CliRunner

from sim2real.cli.main import app
from sim2real.config import read_settings, validate
from sim2real.errors import ConfigError
from sim2real.evaluate.localization import at_recorded_poses, locate_all
from sim2real.images.dataset import DatasetWriter, read_dataset
from sim2real.images.lens import project
from sim2real.learn.torch_io import moved, to_tensor
from sim2real.perceive.config import LocalizeConfig, TeacherConfig
from sim2real.perceive.labelled import load_labelled
from sim2real.perceive.network import Localizer
from sim2real.perceive.render import looking_through, render_dataset
from sim2real.perceive.teacher import Lesson, Teacher
from sim2real.perceive.train import train
from sim2real.perceive.trainer import Trainer
from sim2real.runtime.perception import PerceptionBundle

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
    """Knows the brightest cell, and remembers what it was shown."""

    shown: torch.Tensor

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self.shown = images
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


def middles(images: torch.Tensor) -> torch.Tensor:
    """Columns and rows [N, 2] of the middles of bright spots."""
    return torch.stack([torch.nonzero(spot).float().mean(dim=0).flip(0) for spot in images.mean(dim=1) > 0.5])


def test_the_teacher_says_where_the_moved_object_is():
    places = np.random.default_rng(1).integers(16, 44, (40, 2))
    settings = TeacherConfig(shift_px=8, starts=0.3, fraction=0.5, confidence=0.2, weight=3.0)
    teacher, rng = Teacher(spotter(), settings, spots(places)), np.random.default_rng(2)
    assert teacher.lesson(80, 0.3, rng, lambda images: images) is None
    lesson = teacher.lesson(80, 0.35, rng, lambda images: 0.9 * images)
    assert lesson is not None and lesson.images.shape == (40, 3, 64, 64) and lesson.weight == pytest.approx(1.5)
    here, there = middles(lesson.images), middles(teacher.average.shown)
    assert float((lesson.pixels - here).abs().max()) < 2.1  # its cells are 4 px
    assert float((lesson.pixels - here).mean(dim=0).abs().max()) < 0.6
    assert float((here - there).std(dim=0).min()) > 3.0  # each sees it at a place of its own
    assert float(lesson.images.max()) == pytest.approx(0.9) and float(teacher.average.shown.max()) == 1.0
    assert lesson.sure.all()


def test_nothing_moves_where_nothing_shall():
    places = np.random.default_rng(1).integers(16, 44, (40, 2))
    teacher = Teacher(spotter(), TeacherConfig(shift_px=0, confidence=0.2), spots(places))
    lesson = teacher.lesson(80, 1.0, np.random.default_rng(2), lambda images: images)
    assert lesson is not None
    torch.testing.assert_close(lesson.images, teacher.average.shown)


def test_what_the_teacher_is_not_sure_of_or_is_outside_does_not_count():
    two = np.maximum(spots(np.full((20, 2), 12)), spots(np.full((20, 2), 44)))
    rng = np.random.default_rng(0)
    lesson = Teacher(spotter(), TeacherConfig(confidence=0.8), two).lesson(40, 1.0, rng, lambda images: images)
    assert lesson is not None and not lesson.sure.any()
    edge = Teacher(spotter(), TeacherConfig(confidence=0.2, shift_px=20), spots(np.full((20, 2), 58)))
    lesson = edge.lesson(400, 1.0, rng, lambda images: images)
    assert lesson is not None and 0.1 < float(lesson.sure.mean()) < 0.9
    assert float(lesson.pixels[lesson.sure > 0].max()) <= 63.0


def test_the_average_follows_slowly():
    torch.manual_seed(0)
    student = Localizer(torch.eye(3), 4, (64, 64), (0.0, 1.0, 0.0, 1.0))
    teacher = Teacher(student, TeacherConfig(average=0.9), spots(np.full((20, 2), 20)))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with torch.no_grad():
        for value in student.state_dict().values():
            value.add_(1)
    teacher.follow(student, 1000)
    for name, value in teacher.average.state_dict().items():  # batch norm's statistics too
        torch.testing.assert_close(value, before[name] + (0.1 if value.dtype.is_floating_point else 1))
    assert not teacher.average.training
    young = Teacher(student, TeacherConfig(average=0.9), spots(np.full((20, 2), 20)))
    with torch.no_grad():
        student.map.bias += 1.0
    young.follow(student, 0)
    torch.testing.assert_close(young.average.map.bias, student.map.bias - 0.1)  # fast, where the run begins


@pytest.fixture
def trainer(rendered: Path, tmp_path: Path) -> Trainer:
    settings = config("localizer.augment=[]", "localizer.learning_rate=0.01", "localizer.precision=fp32")
    return Trainer(settings, tmp_path, looking_through(settings), unlabelled=load_labelled(rendered).images[:20])


def test_an_epoch_takes_the_average_along(trainer: Trainer, rendered: Path):
    assert trainer.teacher is not None
    before = {name: value.clone() for name, value in trainer.teacher.average.state_dict().items()}
    figures = trainer._epoch(load_labelled(rendered).rows(slice(0, 32)), None, 0)
    assert {"agreement", "photographs_believed"} <= set(figures)
    after = trainer.teacher.average.state_dict()
    assert not torch.equal(before["map.weight"], after["map.weight"])
    assert not torch.equal(trainer.network.state_dict()["map.weight"], after["map.weight"])


def test_agreement_counts_by_its_weight_and_only_where_the_teacher_is_sure(
    trainer: Trainer, rendered: Path, monkeypatch: pytest.MonkeyPatch
):
    batch = load_labelled(rendered).rows(slice(0, 8))
    images, start = to_tensor(batch.images), copy.deepcopy(trainer.network.state_dict())

    def gradient(weight: float, sure: float) -> torch.Tensor:
        """Of the last layer, after a step."""
        trainer.network.load_state_dict(start)
        pixels = torch.full((8, 2), 40.0)
        trainer._step(images, batch, Lesson(images.flip(0), pixels, torch.full((8,), sure), weight))
        return trainer.network.map.weight.grad.flatten().clone()

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    none, one, two, unsure = gradient(0.0, 1.0), gradient(1.0, 1.0), gradient(2.0, 1.0), gradient(1.0, 0.0)
    torch.testing.assert_close(unsure, none)
    torch.testing.assert_close(two - none, 2.0 * (one - none), rtol=1e-3, atol=1e-6)
    assert float((one - none).abs().max()) > 1e-3


@pytest.mark.slow
def test_a_stopped_training_goes_on_with_its_teacher(photographs: Path, rendered: Path, tmp_path: Path):
    mine = tmp_path / "photographs"
    shutil.copytree(photographs, mine)
    settings = config(f"unlabelled={mine}")
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
    (mine / "0.jpg").unlink()
    with pytest.raises(ConfigError, match=r"other images than there are now \(unlabelled\)"):
        train(settings, tmp_path / "whole", quiet)


def test_too_few_photographs_are_refused_before_anything_is_drawn(tmp_path: Path):
    folder = tmp_path / "few"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(ConfigError, match=r"few \(unlabelled\) has 1 images"):
        train(config(f"unlabelled={folder}"), tmp_path / "run", quiet)
    assert not (tmp_path / "run" / "images").exists()


def test_renders_are_no_photographs(rendered: Path, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "images").symlink_to(rendered)
    with pytest.raises(ConfigError, match=r"48 images of .* among the renders"):
        train(config(f"unlabelled={rendered}"), tmp_path / "run", quiet)


def test_a_useless_teacher_is_said(photographs: Path, rendered: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "images").symlink_to(rendered)
    train(config(f"unlabelled={photographs}", "teacher.confidence=0.99"), tmp_path, quiet)
    assert "images of 320 x 240 are scaled and cut in the middle to 128 x 128" in caplog.text
    assert "found for sure in 0 % of the real images" in caplog.text


def test_checkpoints_that_do_not_note_their_images_are_refused(trainer: Trainer):
    trainer.save()
    path = trainer.run_dir / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state["origins"]
    torch.save(state | {"generator": {}}, path)
    assert trainer.load()  # of renders alone
    torch.save(state | {"generator": {"generator.onnx": "1"}}, path)
    with pytest.raises(ConfigError, match="did not note the images"):
        trainer.load()


def test_errors_at_the_recorded_pose_leave_the_calibration_out(tmp_path: Path):
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
    data = read_dataset(tmp_path / "data")
    places, _, truth = locate_all(bundle.locator(), data)
    known = at_recorded_poses(places, bundle.spec, data.column("T_base_camera"))
    before, after = (np.linalg.norm(p - truth, axis=1).mean() for p in (places, known))
    assert before > 0.005 and after < 0.4 * before
    same = at_recorded_poses(places, bundle.spec, np.tile(eye.T_base_camera, (6, 1, 1)))
    np.testing.assert_allclose(same, places, atol=1e-9)
    said = CliRunner().invoke(app, ["locate", str(tmp_path / "red"), str(tmp_path / "data")])
    assert said.exit_code == 0 and "mean_error_at_recorded" in said.output
