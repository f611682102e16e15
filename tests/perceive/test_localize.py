"""Rendered training images, the localizer's losses, a tiny training, and its resume."""

import json

import cv2
import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("kornia", reason="perception needs sim2real[vision]")

from typer.testing import CliRunner

from sim2real.adapt.domains import load_domain, with_pairs
from sim2real.cli.main import app
from sim2real.config import CONFIGS, read_settings, validate
from sim2real.errors import ConfigError
from sim2real.images.dataset import read_dataset
from sim2real.images.lens import project
from sim2real.perceive import render as rendering
from sim2real.perceive.audit import audit_images
from sim2real.perceive.config import LocalizeConfig
from sim2real.perceive.labelled import load_labelled
from sim2real.perceive.network import Localizer
from sim2real.perceive.render import SceneRenderer, looking_through, render_dataset, visual_terms
from sim2real.perceive.train import train
from sim2real.perceive.trainer import Trainer, pixel_loss
from sim2real.runtime.perception import PerceptionBundle, table_homography
from sim2real.sim.render.scenery import TERMS

# One small training is shared.
pytestmark = pytest.mark.xdist_group("localize")

SMALL = (
    "render.images=72", "render.held_out=24", "render.workers=1", "render.textures=10", "localizer.width=4",
    "localizer.batch_size=8", "localizer.epochs=4",
)  # fmt: skip


def quiet(*_):
    pass


def config(*overrides):
    return validate(LocalizeConfig, *read_settings("so101_localize", (*SMALL, *overrides)))


@pytest.fixture(scope="module")
def painter():
    made = SceneRenderer(config())
    yield made
    made.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "small"
    assert train(config(), folder, quiet) == folder / "bundle"
    return folder


def test_images_carry_where_the_object_is(painter):
    off, sizes = [], []
    for number in range(40):
        drawn = painter.render(number)
        rows, columns = np.nonzero(drawn.mask == 2)
        camera = looking_through(painter._config)
        seen = np.linalg.inv(drawn.fields["T_base_camera"]) @ [*drawn.fields["object_pos"], 1.0]
        ideal = (camera.matrix @ (seen[:3] / seen[2]))[:2]
        assert np.abs(ideal - drawn.fields["object_pixel"]).max() < 2.0  # the zoom's share
        sizes.append(drawn.fields["visible_px"])
        if len(rows) > 60:
            off.append(drawn.fields["object_pixel"] - (columns.mean(), rows.mean()))
    assert len(off) > 20 and np.mean(sizes) > 50
    # The median: of some, what stands before them hides the lower part.
    assert np.abs(np.median(off, axis=0)).max() < 0.15, "a renderer that is half a pixel off puts everything 3 mm aside"


def test_every_class_is_in_the_masks(painter):
    seen = np.unique(np.concatenate([painter.render(number).mask.ravel() for number in range(6)]))
    assert seen.tolist() == [0, 1, 2, 3, 4]


def test_the_audit_finds_terms_that_change_no_image():
    settings = config()
    looks = {**settings.render.appearance, "shadows": {**TERMS["shadows"].model_dump(), "range": (0.0, 0.4)}}
    render = settings.render.model_copy(update={"appearance": looks})
    effects = {effect.term: effect for effect in audit_images(settings.model_copy(update={"render": render}))}
    assert [name for name, e in effects.items() if e.dead] == ["shadows"]  # cast from 0.5 on
    assert effects["table_hue"].change > 10 and {e.kind for e in effects.values()} == {"visual", "photometric"}


def test_an_image_depends_on_its_number_only(painter):
    first = painter.render(3)
    painter.render(17)
    again = painter.render(3)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert np.abs(first.rgb.astype(float) - painter.render(4).rgb).mean() > 10


def test_no_distractor_is_a_red_cylinder(painter, monkeypatch):
    from sim2real.sim.render import scenery

    painted = []
    monkeypatch.setattr(
        scenery, "paint", lambda world, body, colour, texture=-1: painted.append((body, colour, texture))
    )
    for number in range(60):
        painter.render(number)
    kinds = dict(zip(painter._scenery.distractors, scenery.KINDS * 4, strict=False))
    cylinders = [(colour, texture) for body, colour, texture in painted if kinds.get(body) == "cylinder"]
    others = [texture for body, _, texture in painted if kinds.get(body) in ("box", "ball")]
    assert len(cylinders) > 30 and max(others) >= 0
    import colorsys

    for colour, texture in cylinders:
        hue, saturation, value = colorsys.rgb_to_hsv(*colour[:3])
        assert texture == -1
        assert 0.04 - 1e-6 <= hue <= 0.96 + 1e-6 or saturation < 1e-6 or value < 1e-6


def test_old_names_of_settings_are_accepted_with_a_warning(caplog):
    term = "{operation: set, distribution: uniform, range: [0.0, 0.1]}"
    old = config(f"render.looks.shadows={term}", "labelled_share=0.25", "teacher.share=0.3")
    new = config(f"render.appearance.shadows={term}", "labelled_fraction=0.25", "teacher.fraction=0.3")
    assert old == new and "object_hue" in old.render.appearance
    said = " ".join(caplog.messages)
    assert all(f"'{name}' is now" in said for name in ("looks", "labelled_share", "share"))


@pytest.mark.slow
def test_a_dataset_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(rendering, "CHUNK", 8)
    assert render_dataset(config(), tmp_path / "whole", 20, quiet) == 20
    assert render_dataset(config(), tmp_path / "parts", 11, quiet) == 11
    assert render_dataset(config(), tmp_path / "parts", 20, quiet) == 20
    whole, parts = read_dataset(tmp_path / "whole"), read_dataset(tmp_path / "parts")
    np.testing.assert_array_equal(whole.images, parts.images)
    np.testing.assert_array_equal(whole.masks, parts.masks)
    assert whole.frames == parts.frames and whole.classes[2] == "object"
    with pytest.raises(ConfigError, match="images of other settings"):
        render_dataset(config("seed=1"), tmp_path / "parts", 30, quiet)


def test_canonical_images_show_the_same_scenes_in_one_look(tmp_path):
    for folder, canonical in (("renders", False), ("canonical", True)):
        assert render_dataset(config(), tmp_path / folder, 16, quiet, canonical=canonical) == 16
    renders, plain = read_dataset(tmp_path / "renders"), read_dataset(tmp_path / "canonical")
    np.testing.assert_array_equal(renders.masks, plain.masks)
    assert [f["pair"] for f in renders.frames] == list(range(16)) and renders.frames == plain.frames
    tables = [
        np.array([image[mask == 4].mean(axis=0) for image, mask in zip(each.images, each.masks, strict=True)])
        for each in (renders, plain)
    ]
    assert tables[0].std(axis=0).min() > 20.0 and tables[1].std(axis=0).max() < 5.0
    domain = with_pairs(load_domain(tmp_path / "renders", "sim"), tmp_path / "renders", tmp_path / "canonical")
    assert domain.pairs is not None
    np.testing.assert_array_equal(domain.pairs, plain.images)
    with pytest.raises(ConfigError, match="images of other settings"):
        render_dataset(config(), tmp_path / "canonical", 20, quiet)
    frames = tmp_path / "renders" / "frames.jsonl"
    frames.write_text(frames.read_text().replace('"pair"', '"twin"'))
    with pytest.raises(ConfigError, match="render-dataset RENDERS --canonical CANONICAL"):
        with_pairs(domain, tmp_path / "renders", tmp_path / "canonical")


def test_terms_can_be_chosen_and_replaced():
    every, some = visual_terms(config()), visual_terms(config("render.randomize=[object_hue, zoom]"))
    assert every["object_hue"].range == (-0.04, 0.04) and len(every) > 30
    assert set(some) == {"object_hue", "zoom"} and some["zoom"].range == (0.98, 1.02)
    assert "distractors" in every and "distractors" not in visual_terms(config("render.without=[distractors]"))
    with pytest.raises(ConfigError, match=r"no visual terms \['zom'\]"):
        visual_terms(config("render.randomize=[zom]"))


def test_the_object_is_labelled_where_the_moved_camera_sees_it(painter):
    drawn = painter.render(5)
    camera = looking_through(painter._config)
    place = drawn.fields["object_pos"][None]
    nominal = project(camera, place, np.linalg.inv(camera.T_base_camera))
    moved = project(camera, place, np.linalg.inv(drawn.fields["T_base_camera"]))
    zoom = 0.03 * np.abs(moved - 63.5).max()
    np.testing.assert_allclose(drawn.fields["object_pixel"][None], moved, atol=zoom)
    assert np.abs(moved - nominal).max() > 0.1


def test_the_place_is_where_the_calibrated_camera_sees_the_pixel():
    camera = looking_through(config())
    network = Localizer(torch.as_tensor(table_homography(camera, 0.02)), 4, (128, 128), (0.1, 0.45, -0.3, 0.3)).eval()
    places = np.array([[0.3, 0.1, 0.02], [0.22, -0.2, 0.02]])
    pixels = torch.as_tensor(project(camera, places, np.linalg.inv(camera.T_base_camera)), dtype=torch.float32)
    heat = -(network.pixels[None] - pixels[:, None]).square().sum(dim=2) / 8.0
    heat[0] += 0.9 * torch.exp(heat[1] * 8.0) * 8.0  # something like it elsewhere, less likely, does not pull it aside
    found, _, logs = network._read(torch.zeros(2, 8, len(network.pixels)), heat)
    np.testing.assert_allclose(found.detach().numpy(), places[:, :2], atol=2e-3)
    assert logs.shape == (2, network.rows * network.columns)


def test_the_best_map_has_the_pixel_as_its_mean():
    pixel = torch.tensor([[41.0, 18.5]])
    logits = torch.zeros(1, 8 * 16, requires_grad=True)  # 32 x 64 px
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = pixel_loss(torch.log_softmax(logits, 1), pixel, 8, 16).mean()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    shares = torch.softmax(logits.detach(), 1).reshape(8, 16)
    v, u = torch.meshgrid(4.0 * torch.arange(8) + 1.5, 4.0 * torch.arange(16) + 1.5, indexing="ij")
    assert float((shares * u).sum()) == pytest.approx(41.0, abs=0.1)
    assert float((shares * v).sum()) == pytest.approx(18.5, abs=0.1)


@pytest.mark.slow
def test_a_run_leaves_what_a_person_needs(run):
    history = json.loads((run / "history.json").read_text())
    assert len(history["epochs"]) == 4 and 0 < history["held_out"]["mean_error_m"] < 0.4
    assert cv2.imread(str(run / "contact_sheet.png")).shape[:2] == (4 * 129 - 1, 12 * 129 - 1)
    assert list((run / "tensorboard").glob("events*"))
    bundle = PerceptionBundle.load(run / "bundle")
    assert bundle.provenance["config"]["name"] == "so101_localize"
    data = load_labelled(run / "images")
    sighting = bundle.locator().locate(data.images[0])
    assert sighting.position[2] == 0.02 and (sighting.std > 0).all()


@pytest.mark.slow
def test_a_few_images_can_be_learned_by_heart(run, tmp_path):
    settings = config("localizer.augment=[]", "localizer.width=8", "localizer.epochs=40", "localizer.save_every=100")
    trainer = Trainer(settings, tmp_path, looking_through(settings))
    some = load_labelled(run / "images").rows(slice(0, 16))
    assert trainer.train(some, some, quiet)
    first, last = trainer.history[0], trainer.history[-1]
    assert last["finding"] < 0.5 * first["finding"] and last["error_m"] < 0.5 * first["error_m"]


@pytest.mark.slow
def test_a_stopped_training_goes_on_as_if_it_had_not(run, tmp_path):
    folder = tmp_path / "stopped"
    folder.mkdir()
    (folder / "images").symlink_to(run / "images")

    def stop(stage, done, total, figures):
        if stage == "training" and done == 1:
            raise KeyboardInterrupt

    assert train(config(), folder, stop) is None
    assert train(config(), folder, quiet) == folder / "bundle"
    one, other = (torch.load(path / "checkpoint.pt", weights_only=True)["network"] for path in (run, folder))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ConfigError, match="other settings"):
        train(config("localizer.epochs=5"), folder, quiet)


@pytest.mark.slow
def test_train_takes_a_localization_config(run, tmp_path):
    file = tmp_path / "mine.yaml"
    settings = yaml.safe_load((run / "config.yaml").read_text())
    file.write_text(yaml.safe_dump(settings))
    done = CliRunner().invoke(app, ["train", str(file), "--run", str(run)])
    assert done.exit_code == 0, done.output
    assert (run / "report.html").read_text().count("data:image") == 2
    misspelt = CliRunner().invoke(app, ["train", "so101_localize", "--set", "localizer.epoch=3"])
    assert isinstance(misspelt.exception, ConfigError) and "did you mean 'epochs'" in str(misspelt.exception)
    assert (CONFIGS / "so101_localize.yaml").is_file()
