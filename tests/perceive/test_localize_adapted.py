"""Localizers trained on adapted renders and on labelled photographs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("kornia", reason="perception needs sim2real[vision]")

from perception_bundles import leave_run

from sim2real.adapt.config import GeneratorConfig
from sim2real.adapt.networks import Generator
from sim2real.adapt.translate import export_generator
from sim2real.config import read_settings, validate
from sim2real.errors import AdaptationError, ConfigError
from sim2real.images.dataset import DatasetWriter, read_dataset
from sim2real.perceive.adapt import adapt_dataset
from sim2real.perceive.config import LocalizeConfig
from sim2real.perceive.labelled import Labelled, load_labelled, load_real_images
from sim2real.perceive.render import looking_through, render_dataset
from sim2real.perceive.train import train
from sim2real.perceive.trainer import Trainer
from sim2real.runtime.perception import PerceptionBundle
from sim2real.runtime.translation import file_hashes

SMALL = (
    "render.images=48", "render.held_out=16", "render.workers=1", "render.textures=10", "localizer.width=4",
    "localizer.batch_size=8", "localizer.epochs=1",
)  # fmt: skip


def quiet(*_: object) -> None:
    pass


def config(*overrides: str) -> LocalizeConfig:
    return validate(LocalizeConfig, *read_settings("so101_localize", (*SMALL, *overrides)))


@cache
def exported(side: int) -> bytes:
    torch.manual_seed(0)
    return export_generator(
        Generator(GeneratorConfig(width=4, downs=1, blocks=1, noise=1, from_input=True)), (side, side)
    )


def make_run(folder: Path, side: int, passed: bool = True) -> Path:
    """What a finished adaptation leaves: a generator that begins as its input, with a little noise on top."""
    return leave_run(folder, exported(side), passed)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("adaptation") / "run", 128)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "images"
    render_dataset(config(), folder, 48, quiet)
    return folder


def test_masks_and_labels_stay_and_some_images_are_as_rendered(generator: Path, rendered: Path, tmp_path: Path) -> None:
    assert adapt_dataset(generator, rendered, tmp_path / "a", 48, 0.25, quiet) == 48
    before, after = read_dataset(rendered), read_dataset(tmp_path / "a")
    went = np.array([frame["adapted"] for frame in after.frames])
    changed = (before.images != after.images).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(went, changed)
    assert 0.55 < went.mean() < 0.95
    np.testing.assert_array_equal(before.masks, after.masks)
    np.testing.assert_array_equal(before.column("object_pos"), after.column("object_pos"))
    assert load_labelled(tmp_path / "a").pixels.shape == (48, 2)


def test_a_torn_dataset_goes_on_to_the_same_images(generator: Path, rendered: Path, tmp_path: Path) -> None:
    adapt_dataset(generator, rendered, tmp_path / "whole", 48, 0.0, quiet)
    adapt_dataset(generator, rendered, tmp_path / "torn", 30, 0.0, quiet)
    lines = (tmp_path / "torn" / "frames.jsonl").read_bytes()
    (tmp_path / "torn" / "frames.jsonl").write_bytes(lines[: int(0.7 * len(lines))])  # in the middle of a line
    assert adapt_dataset(generator, rendered, tmp_path / "torn", 48, 0.0, quiet) == 48
    whole, torn = read_dataset(tmp_path / "whole"), read_dataset(tmp_path / "torn")
    np.testing.assert_array_equal(whole.images, torn.images)
    assert whole.frames == torn.frames
    with pytest.raises(ConfigError, match="another generator"):
        adapt_dataset(generator, rendered, tmp_path / "torn", 48, 0.5, quiet)


def test_runs_that_cannot_be_used_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished adaptation"):
        train(config(f"adapted={tmp_path / 'nothing'}"), tmp_path / "run", quiet)
    refused = make_run(tmp_path / "refused", 32, passed=False)
    with pytest.raises(AdaptationError, match="moves object"):
        train(config(f"adapted={refused}"), tmp_path / "run2", quiet)
    small = make_run(tmp_path / "small", 32)
    with pytest.raises(AdaptationError, match=r"takes images of 32 x 32, these are 128 x 128"):
        train(config(f"adapted={small}"), tmp_path / "run3", quiet)
    assert not any((tmp_path / run / "images").exists() for run in ("run", "run2", "run3"))


def test_a_localizer_trains_on_adapted_images_and_photographs(generator: Path, rendered: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = config(f"adapted={generator}", "unadapted=0", f"labelled={rendered}", "labelled_fraction=0.25")
    bundle = train(settings, run, quiet)
    assert bundle is not None
    assert len(read_dataset(run / "adapted")) == len(read_dataset(run / "images")) == 48
    golden = PerceptionBundle.load(bundle).golden()["image"]
    np.testing.assert_array_equal(golden, read_dataset(run / "adapted").images[32:40])
    learned_from = PerceptionBundle.load(bundle).provenance["metrics"]["learned_from"]
    assert {f"adapted: {name}" for name in file_hashes(generator)} | {"labelled"} == set(learned_from)
    assert learned_from["adapted: generator.onnx"] == file_hashes(generator)["generator.onnx"]
    # Another generator in the same place: even without the images of the old one, its weights are not taken for new.
    other = {**learned_from, "adapted: generator.onnx": "another"}
    with pytest.raises(ConfigError, match="other images than there are now"):
        Trainer(settings, run, looking_through(settings), other).load()
    with pytest.raises(ConfigError, match=r"than there are now \(labelled\)"):
        Trainer(settings, run, looking_through(settings), {**learned_from, "labelled": "another"}).load()
    assert Trainer(settings, run, looking_through(settings), learned_from).load()


def test_photographs_know_their_pixels_from_the_camera(rendered: Path, tmp_path: Path) -> None:
    camera = looking_through(config())
    found = load_real_images(rendered, config(), camera)
    drawn = load_labelled(rendered)
    off = np.abs(found.pixels - drawn.pixels)
    assert off.max() < 2.0 and np.median(off) < 0.4  # the zoom, which only the renderer knows
    np.testing.assert_array_equal(found.position, drawn.position)
    with DatasetWriter(tmp_path / "small", 64, 64) as writer:
        writer.add(np.zeros((64, 64, 3), np.uint8), object_pos=[0.3, 0.0, 0.02])
    with pytest.raises(ConfigError, match="64 x 64"):
        load_real_images(tmp_path / "small", config(), camera)


@pytest.mark.parametrize(("share", "expected"), [(0.25, 2), (0.5, 4), (1.0, 8), (0.01, 1)])
def test_photographs_make_up_their_share_of_a_batch(share: float, expected: int, tmp_path: Path) -> None:
    def numbered(count: int, value: int) -> Labelled:
        images = np.full((count, 128, 128, 3), value, np.uint8)
        return Labelled(images, np.full((count, 2), float(value)), np.full((count, 2), float(value)))

    trainer = Trainer(config(f"labelled_fraction={share}"), tmp_path, looking_through(config()))
    mixed = trainer._mixed(numbered(8, 1), numbered(3, 2), (0, 0))
    assert (mixed.images[:, 0, 0, 0] == 2).sum() == expected
    np.testing.assert_array_equal(mixed.position[:, 0], mixed.images[:, 0, 0, 0])
    assert len(mixed.images) == 8
