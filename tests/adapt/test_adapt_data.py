"""What an adaptation is fed with: bad datasets, other datasets than before, and what it says about them."""

# ruff: noqa: F811 - parameters are called like the fixtures that they take, which another file has
from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs sim2real[train]")
pytest.importorskip("tensorboard", reason="needs sim2real[train]")

from adapt_maker import CLASSES, scenes, write_scenes  # noqa: E402
from test_adapt_run import SMALL, domains, finished, folders, photographs, small, write_images  # noqa: E402, F401
from typer.testing import CliRunner  # noqa: E402

from sim2real.adapt.apply import apply  # noqa: E402
from sim2real.adapt.check import check  # noqa: E402
from sim2real.adapt.data import Data, check_depth, load_data  # noqa: E402
from sim2real.adapt.domains import Domain, check_masks, check_pair, count_alike, load_domain, thumbnail  # noqa: E402
from sim2real.adapt.origin import DATA, note_data, unseen  # noqa: E402
from sim2real.adapt.run import adapt  # noqa: E402
from sim2real.cli.main import app  # noqa: E402
from sim2real.errors import AdaptationError, BundleError, ConfigError  # noqa: E402
from sim2real.evaluate.adaptation import write_adaptation_report  # noqa: E402
from sim2real.images.dataset import DatasetWriter, read_dataset, read_header  # noqa: E402
from sim2real.runtime.bundle import PolicyBundle  # noqa: E402
from sim2real.runtime.perception import PerceptionBundle  # noqa: E402
from sim2real.runtime.translation import Translator  # noqa: E402

Folders = tuple[Path, Path]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "run")


# Which images a run was trained on


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_images_only(run: Path, folders: Folders, tmp_path: Path) -> None:
    config, (sim, real) = small("graspgan"), folders
    moved = load_data(config, Path(shutil.copytree(sim, tmp_path / "moved")), real)
    assert adapt(config, moved, run) is not None
    other_sim = load_data(config, write_scenes(tmp_path / "sim", 60, camera=False, seed=7), real)
    other_real = load_data(config, sim, write_scenes(tmp_path / "real", 50, camera=True, seed=8, masks=False))
    before = {file: file.read_bytes() for file in run.iterdir() if file.is_file()}
    with pytest.raises(ConfigError, match=rf"--sim was 60 images of {sim}, now it is 60 of {tmp_path / 'sim'}"):
        adapt(config, other_sim, run)
    with pytest.raises(ConfigError, match=rf"--real was 50 images of {real}, now it is 50 of "):
        adapt(config, other_real, run)
    assert {file: file.read_bytes() for file in run.iterdir() if file.is_file()} == before


def test_other_masks_are_other_images(tmp_path: Path) -> None:
    source, target = domains()
    data = Data.of(source, target, 0)
    assert data.source.masks is not None
    note_data(tmp_path, (data.source, data.source_held), (data.target, data.target_held))
    (tmp_path / "checkpoint.pt").write_bytes(b"begun")
    changed = replace(data.source, masks=np.roll(data.source.masks, 1, axis=1))
    with pytest.raises(ConfigError, match="trained on other images: --sim"):
        note_data(tmp_path, (changed, data.source_held), (data.target, data.target_held))


@pytest.mark.slow
def test_a_run_that_does_not_know_its_images_is_judged_and_applied_but_does_not_go_on(
    run: Path, folders: Folders, tmp_path: Path
) -> None:
    (run / DATA).unlink()
    verdict = check(run, folders[0])
    assert "whether the run has seen these images" in verdict.not_judged[-1]
    assert json.loads((run / "gate.json").read_text())["judged_on"]["left_out_as_trained_on"] is None
    assert apply(run, folders[0], tmp_path / "out", anyway=True) == 60
    with pytest.raises(ConfigError, match=r"does not say on which images it was trained \(no data.json\)"):
        adapt(small("graspgan"), load_data(small("graspgan"), *folders), run)


def test_a_broken_note_is_one_clear_error(run: Path, folders: Folders) -> None:
    (run / DATA).write_text('{"sim": 1')
    with pytest.raises(ConfigError, match=r"data.json is broken .* copy the run again"):
        check(run, folders[0])


def test_check_leaves_out_what_was_trained_on(run: Path, folders: Folders) -> None:
    trained = json.loads((run / "gate.json").read_text())
    assert trained["judged_on"] == {"folder": str(folders[0]), "images": 6, "left_out_as_trained_on": 0}
    verdict = check(run, folders[0])
    again = json.loads((run / "gate.json").read_text())
    assert again["judged_on"] == {"folder": str(folders[0]), "images": 6, "left_out_as_trained_on": 54}
    assert verdict.figures == pytest.approx(trained["figures"])
    assert Translator(run, anyway=True).objects_judged


def test_check_refuses_a_set_that_was_trained_on(run: Path, folders: Folders) -> None:
    config = small("graspgan")
    with pytest.raises(AdaptationError, match="was trained on 54 of the 54 images of 'sim'"):
        unseen(run, load_data(config, *folders).source)


def test_check_says_what_it_has_judged(run: Path, folders: Folders, tmp_path: Path) -> None:
    other = write_scenes(tmp_path / "other", 20, camera=False, seed=5)
    told = CliRunner().invoke(app, ["adapt", "check", str(run), "--sim", str(other)]).output
    assert "Gate, on 20 images that training has not seen" in " ".join(told.split())
    told = CliRunner().invoke(app, ["adapt", "check", str(run), "--sim", str(folders[0])]).output
    assert "Gate, on 6 images" in told
    assert "54 images that the run was trained on were left out" in told


# Reports


def test_the_report_names_the_images(finished: Path, folders: Folders) -> None:
    page = (finished / "report.html").read_text()
    assert f"{folders[0]}; 54 to train on, 6 held out" in page
    assert f"{folders[1]}; 33 to train on, 17 held out" in page
    assert "17 real images held out of training: fewer than 50, so KID and FID are unreliable" in page
    assert "A later 'sim2real adapt check' writes its" in page


def test_a_run_without_masks_has_a_report(folders: Folders, tmp_path: Path) -> None:
    sim = write_scenes(tmp_path / "sim", 30, camera=False, seed=4, masks=False)
    config = small("cut", "task.kind=none", "steps=2", "check_every=2")
    result = adapt(config, load_data(config, sim, folders[1]), tmp_path / "run")
    assert result is not None
    assert result.verdict.reasons == ("nothing could be judged: give images with masks or labels",)
    page = write_adaptation_report(tmp_path / "run", "cut", replace(result, real_held_out=60)).read_text()
    assert page.count("data:image/png") == 1
    assert "60 real images held out of training.\n" in page


# Datasets that cannot be used, or only in part


def write_masks(folder: Path, classes: dict[int, str], numbers: dict[int, int]) -> Path:
    """Scenes whose masks have other numbers than those that ``scenes`` writes."""
    images, masks = scenes(20, False, 0)
    with DatasetWriter(folder, 32, 32, classes) as writer:
        for image, mask in zip(images, masks, strict=True):
            writer.add(image, np.vectorize(lambda number: numbers.get(number, number))(mask).astype(np.uint8))
    return folder


def test_masks_with_other_numbers_than_the_classes_are_refused(run: Path, folders: Folders, tmp_path: Path) -> None:
    wrong = write_masks(tmp_path / "wrong", CLASSES, {1: 255})
    told = r"pixels of 255, which its dataset.json does not name \(0 background, 1 object\); .* 1 in place of 255"
    with pytest.raises(AdaptationError, match=told):
        load_data(small("graspgan"), wrong, folders[1])
    with pytest.raises(AdaptationError, match=told):
        check(run, wrong)
    unnamed = load_domain(write_masks(tmp_path / "unnamed", {}, {1: 255}), "sim")
    with pytest.raises(AdaptationError, match="pixels of 255, but class numbers go up one by one from 0"):
        check_masks(unnamed)
    many = replace(unnamed, masks=np.arange(256, dtype=np.uint8).reshape(1, 16, 16), classes=CLASSES)
    with pytest.raises(AdaptationError, match="pixels of 2, 3, 4, 5, 6 and 249 more"):
        check_masks(many)


@pytest.mark.parametrize(("classes", "numbers"), [({}, {}), ({}, {0: 2}), ({1: "object"}, {}), ({9: "object"}, {1: 9})])
def test_masks_with_the_numbers_of_the_classes_are_taken(
    tmp_path: Path, classes: dict[int, str], numbers: dict[int, int]
) -> None:
    check_masks(load_domain(write_masks(tmp_path / "sim", classes, numbers), "sim"))


def test_swapped_domains_are_noticed_without_a_task() -> None:
    source, target = domains()
    with pytest.raises(AdaptationError, match="are the two folders swapped"):
        check_pair(target, source, needs_masks=False)
    check_pair(target, Domain("other", scenes(20, True, 8)[0]), needs_masks=False)


@pytest.mark.parametrize("side", [32, 128])
def test_black_with_sensor_noise_is_flat(tmp_path: Path, side: int) -> None:
    rng = np.random.default_rng(0)
    black = [rng.integers(0, 9, (side, side, 3)).astype(np.uint8) for _ in range(20)]
    with pytest.raises(AdaptationError, match=r"0 usable images of 20 \(20 flat\)"):
        load_domain(write_images(tmp_path / "real", black), "real")


def test_a_small_object_on_a_plain_ground_is_not_flat(tmp_path: Path) -> None:
    images = [np.full((128, 128, 3), 90, np.uint8) for _ in range(20)]
    for number, image in enumerate(images):
        image[40:45, 5 * number : 5 * number + 5] = 160
    domain = load_domain(write_images(tmp_path / "real", images), "real")
    assert (len(domain), domain.alike, domain.skipped) == (20, 0, {})


def noisy(image: np.ndarray, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.clip(image + rng.integers(-1, 2, image.shape), 0, 255).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize("side", [32, 128])
def test_copies_of_one_image_are_one_image(tmp_path: Path, side: int) -> None:
    copies = noisy(scenes(1, True, 0, side)[0][0], 40)
    with pytest.raises(AdaptationError, match=r"40 usable images of 40 .* of which 39 differ from others by noise"):
        load_domain(write_images(tmp_path / "real", copies), "real")


def test_copies_among_other_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = photographs(30)
    domain = load_domain(write_images(tmp_path / "real", [*images, *noisy(images[3], 5)]), "real")
    assert (len(domain), domain.alike) == (35, 5)
    assert "5 of 35 images differ from others by noise only" in caplog.text


def test_alike_is_counted_as_comparing_all_pairs_would() -> None:
    images = [image for one in photographs(12) for image in noisy(one, 3)]
    thumbnails = np.stack([thumbnail(image) for image in images])
    assert count_alike(thumbnails) == 24
    assert count_alike(thumbnails[::3]) == 0


# Sizes


def test_networks_too_deep_for_the_images_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = Data.of(*domains(), 0)
    with pytest.raises(ConfigError, match=r"discriminator.layers=7 with discriminator.scales=1 .* 32 x 32: .* be 6"):
        adapt(small("graspgan", "discriminator.layers=7", "discriminator.scales=1"), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("layers", "scales"), [(5, 1), (3, 3), (1, 5)])
def test_the_deepest_networks_work_and_deeper_ones_do_not(layers: int, scales: int) -> None:
    from sim2real.adapt.networks import Discriminator

    images = torch.zeros((2, 3, 32, 64))
    deepest = small("cut", f"discriminator.layers={layers}", f"discriminator.scales={scales}")
    check_depth(deepest, (32, 64))
    assert len(Discriminator(deepest.discriminator)(images)) == scales
    deeper = small("cut", f"discriminator.layers={layers + 1}", f"discriminator.scales={scales}")
    with pytest.raises(RuntimeError):
        Discriminator(deeper.discriminator)(images)
    with pytest.raises(ConfigError, match="leaves nothing of images of 64 x 32"):
        check_depth(deeper, (32, 64))


@pytest.mark.slow
def test_the_command_line_says_what_was_resized(folders: Folders, tmp_path: Path) -> None:
    sim, _ = folders
    real = write_images(tmp_path / "real", [cv2.resize(image, (50, 40)) for image in photographs(20)])
    sets = [part for setting in (*SMALL, "steps=1", "check_every=1") for part in ("--set", setting)]
    command = ["adapt", "--sim", str(sim), "--real", str(real), "--out", str(tmp_path / "run"), *sets]
    told = " ".join(CliRunner().invoke(app, command).output.split())
    assert "54 rendered and 13 real images of 32 x 32 to train on, 6 and 7 held out" in told
    assert "0 rendered and 20 real ones were resized: the networks take multiples of 32 px" in told
    assert "13 to train on, 7 held out; 20 resized" in (tmp_path / "run" / "report.html").read_text()


# Applying


def shorten(folder: Path, count: int) -> None:
    """Leave the first ``count`` frames of a dataset, and a torn line."""
    lines = (folder / "frames.jsonl").read_text().splitlines(keepends=True)
    (folder / "frames.jsonl").write_text("".join(lines[:count]) + '{"image": "im')


@pytest.mark.slow
def test_apply_goes_on_with_the_same_generator_and_images_only(run: Path, folders: Folders, tmp_path: Path) -> None:
    out = tmp_path / "out"
    apply(run, folders[0], out, anyway=True)
    whole = read_dataset(out).images
    shorten(out, 23)
    other = write_scenes(tmp_path / "other", 60, camera=False, seed=5)
    with pytest.raises(ConfigError, match=f"begun with images of {folders[0]}, not with what is given now"):
        apply(run, other, out, anyway=True, resume=True)
    config = small("graspgan", "seed=3", "steps=1")
    assert adapt(config, load_data(config, *folders), tmp_path / "second") is not None
    with pytest.raises(ConfigError, match=f"begun with the generator of {run}, not with what is given now"):
        apply(tmp_path / "second", folders[0], out, anyway=True, resume=True)
    assert len(read_dataset(out)) == 23
    assert apply(run, folders[0], out, anyway=True, resume=True) == 60
    assert (read_dataset(out).images == whole).all()
    assert read_header(out)["about"]["adapted"]["from"] == str(folders[0])


def test_apply_does_not_go_on_with_what_does_not_say_its_generator(run: Path, folders: Folders, tmp_path: Path) -> None:
    write_scenes(tmp_path / "out", 20, camera=False, seed=5)
    with pytest.raises(ConfigError, match="choose another folder"):
        apply(run, folders[0], tmp_path / "out", anyway=True, resume=True)
    assert apply(run, folders[0], tmp_path / "new", anyway=True, resume=True) == 60


def test_apply_takes_what_training_takes(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = photographs(40)
    images[5] = cv2.resize(images[5], (64, 48))
    folder = write_images(tmp_path / "mixed", images)
    for broken in ("003.png", "017.png"):
        (folder / broken).write_bytes((folder / broken).read_bytes()[:40])
    assert len(load_domain(folder, "real")) == 38
    assert apply(run, folder, tmp_path / "out", anyway=True) == 38
    assert f"{folder}: left out 2 of 40 frames, which cannot be read" in caplog.text
    assert f"{folder}: brought 1 images to the size of the first, 32 x 32" in caplog.text
    rows = [frame["from_frame"] for frame in read_dataset(tmp_path / "out").frames]
    assert rows == [row for row in range(40) if row not in (3, 17)]
    whole = read_dataset(tmp_path / "out").images
    shorten(tmp_path / "out", 17)  # the next is the 18th frame after a broken one
    assert apply(run, folder, tmp_path / "out", anyway=True, resume=True) == 38
    assert (read_dataset(tmp_path / "out").images == whole).all()


def test_apply_leaves_out_frames_without_their_mask(run: Path, folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders[0], tmp_path / "sim"))
    (folder / "masks" / "000000.png").unlink()
    assert apply(run, folder, tmp_path / "out", anyway=True) == 59
    before, after = read_dataset(folders[0]), read_dataset(tmp_path / "out")
    assert before.masks is not None and after.masks is not None
    assert (after.masks == before.masks[1:]).all()
    assert [frame["object_pos"] for frame in after.frames] == [frame["object_pos"] for frame in before.frames[1:]]
    shutil.rmtree(folder / "masks")
    with pytest.raises(AdaptationError, match="has no image that can be read with its mask"):
        apply(run, folder, tmp_path / "none", anyway=True)


# Messages


def test_a_missing_bundle_is_called_by_its_kind(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a perception bundle: it has no manifest.json"):
        PerceptionBundle.load(tmp_path / "nonexistent")
    with pytest.raises(BundleError, match=r"is not a policy bundle: it has no manifest.json"):
        PolicyBundle.load(tmp_path / "nonexistent")


def test_small_figures_are_shown(run: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    import sim2real.adapt.check

    def found(*_: object) -> object:
        return replace(check(run, folders[0]), figures={"policy.moved_median_rad": 0.00034})

    monkeypatch.setattr(sim2real.adapt.check, "check", found)
    assert "0.00034" in CliRunner().invoke(app, ["adapt", "check", str(run), "--sim", str(folders[0])]).output
