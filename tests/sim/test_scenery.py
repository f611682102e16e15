"""Visual randomization: every term shows, images are repeatable, and what is drawn is not physics."""

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from sim2real.cli.main import app
from sim2real.errors import ConfigError, SimulationError
from sim2real.images.pictures import CAPTION_PX, contact_sheet, enlarged, marked
from sim2real.robots import load_robot
from sim2real.runtime.camera import CameraCalibration
from sim2real.sim.render.camera import SimCamera
from sim2real.sim.render.drawing import KINDS as KINDS_OF_THINGS
from sim2real.sim.render.drawing import add_object, move_object, position_of
from sim2real.sim.render.preview import EYE_M, TARGET_M, looking
from sim2real.sim.render.scenery import TERMS, Scenery, audit_appearance
from sim2real.sim.render.scenery import _radius as radius_of
from sim2real.sim.render.textures import KINDS, from_photographs, procedural
from sim2real.sim.world import World

K = np.array([[58.0, 0, 31.5], [0, 58.0, 31.5], [0, 0, 1]])
CAMERA = CameraCalibration(64, 64, K, "pinhole", np.array([-0.1, 0.01, 0.0, 0.0, 0.0]))
POSE = looking(np.array(EYE_M), np.array(TARGET_M))


@pytest.fixture
def make():
    worlds = []

    def one(egl=False, **settings):
        world = World(1, 0.01, egl=egl)
        world.load_robots(load_robot("so101").urdf, fixed_base=True)
        thing = add_object(world, "cylinder", 0.03, 0.04)
        move_object(world, thing, np.array([0.3, 0.05, 0.02]))
        worlds.append(world)
        return Scenery(world, CAMERA, POSE, objects=[thing], textures=20, **settings), thing

    yield one
    for world in worlds:
        world.close()


def images(scenery, count):
    result = []
    for _ in range(count):
        scenery.look()
        result.append(scenery.render().rgb)
    return result


def test_every_term_changes_pixels(make):
    effects = audit_appearance(make()[0])
    assert set(effects) == set(TERMS) and len(effects) == 37
    assert [name for name, effect in effects.items() if effect < 0.01] == []


def test_the_same_seed_gives_the_same_images_and_another_one_others(make):
    first, again, other = (images(make(seed=seed)[0], 4) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.array(first, dtype=float) - other).mean() > 20


def test_without_terms_every_image_is_the_same(make):
    scenery, _ = make(terms={})
    one, two = images(scenery, 2)
    np.testing.assert_array_equal(one, two)


def test_the_object_is_segmented_where_it_is(make):
    scenery, thing = make(terms={})
    scenery.look()
    seen = scenery.render()
    rows, columns = np.nonzero(seen.segmentation == thing)
    assert len(rows) > 4
    at = np.linalg.inv(POSE) @ [0.3, 0.05, 0.02, 1]
    pixel = cv2.projectPoints(at[None, :3], np.zeros(3), np.zeros(3), K, CAMERA.distortion)[0].ravel()
    assert np.abs(pixel - (columns.mean(), rows.mean())).max() < 1.0


def nominal(scenery, **values):
    params = scenery.params.nominal.copy()
    for name, value in values.items():
        params[scenery.params.column(name)] = value
    return params


def test_what_obstructs_hides_part_of_the_object_and_seldom_all_of_it(make):
    scenery, thing = make(terms={})

    def seen(seed, obstruction):
        scenery.look(nominal(scenery, obstruction=obstruction), seed)
        return int((scenery.render().segmentation == thing).sum())

    whole, left = seen(0, 0.0), np.array([seen(seed, 1.0) for seed in range(60)])
    assert left.max() <= whole
    assert 0.3 < np.mean(left < whole) and np.mean(left > 0.3 * whole) > 0.7, (whole, left)


def test_every_distractor_is_seen_and_none_floats(make):
    scenery, _ = make(terms={})
    for seed in range(10):
        scenery.look(nominal(scenery, distractors=10.0, distractor_size=0.06), seed)
        for index, body in enumerate(scenery.distractors):
            middle = position_of(scenery.world, body)[2]
            half = radius_of(index) if KINDS_OF_THINGS[index % 3] == "ball" else 0.08
            assert middle - half <= 1e-9 < middle + half, "its foot is in the table, its head above"


def test_no_distractor_is_what_the_object_is_told_by(make):
    scenery, _ = make(terms={}, unlike=("cylinder", 0.0, 1.0))
    scenery.look(nominal(scenery, distractors=10.0), 3)
    away = [position_of(scenery.world, body)[2] < -1.0 for body in scenery.distractors]
    assert away == [index % 3 == 1 for index in range(10)]
    for seed in range(20):
        scenery.look(nominal(scenery, obstruction=1.0), seed)
        positions = [position_of(scenery.world, body) for body in scenery.distractors]
        there = [position[:2] for position in positions if position[2] > -1]
        assert len(there) == 1 and np.linalg.norm(there[0] - (0.3, 0.05)) < 0.2


def test_links_differ_in_brightness(make):
    scenery, _ = make(terms={})
    robot = scenery.world.bodies[0]

    def shades(contrast):
        scenery.look(nominal(scenery, robot_contrast=contrast), 1)
        frame = scenery.render()
        return frame.rgb[frame.segmentation == robot].mean(axis=1)

    assert shades(1.0).std() > 1.5 * shades(0.0).std()


def test_another_renderer_draws_the_same(make):
    try:
        pairs = [make(egl=egl, terms=TERMS, seed=3) for egl in (False, True)]
    except SimulationError as error:
        pytest.skip(f"one renderer only: {error}")
    for _ in range(4):
        for scenery, _ in pairs:
            scenery.look()
        (tiny, opengl), things = [scenery.render() for scenery, _ in pairs], [thing for _, thing in pairs]
        seen = [frame.segmentation == thing for frame, thing in zip((tiny, opengl), things, strict=True)]
        assert (seen[0] & seen[1]).sum() >= 0.8 * (seen[0] | seen[1]).sum()
        assert np.median(np.abs(tiny.depth - opengl.depth)) < 5e-4
        assert np.abs(tiny.rgb.astype(float) - opengl.rgb).mean() < 40  # their lamps and shadows differ
    with pytest.raises(SimulationError, match="1024 px"):
        SimCamera(CameraCalibration(640, 640, np.diag([600.0, 600.0, 1.0])), 2).render(pairs[1][0].world, POSE)


def test_photographs_become_textures(make, tmp_path):
    with pytest.raises(ConfigError, match="holds no photographs"):
        make(photographs=tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((80, 100, 3), (10, 20, 250), np.uint8))  # OpenCV's order: red
    (cut,) = from_photographs(tmp_path, np.random.default_rng(0), 1)
    assert cut.shape == (64, 64, 3) and cut[..., 0].mean() > 240 and cut[..., 2].mean() < 20
    assert images(make(photographs=tmp_path)[0], 1)[0].shape == (64, 64, 3)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"b\.png cannot be read"):
        make(photographs=tmp_path)


def test_procedural_textures_of_every_kind_vary():
    rng = np.random.default_rng(0)
    for kind in KINDS:
        made = [procedural(rng, kind) for _ in range(6)]
        assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in made)
        assert np.std([image.mean() for image in made]) > 5
    spreads = {kind: procedural(rng, kind).std(axis=(0, 1)).max() for kind in KINDS}
    assert min(spread for kind, spread in spreads.items() if kind != "flat") > 2 * spreads["flat"]


def test_contact_sheet_and_command(tmp_path):
    sheet = contact_sheet([np.full((4, 6, 3), i, np.uint8) for i in range(5)], columns=3)
    assert sheet.shape == (9, 20, 3) and sheet[5, 7, 0] == 4 and sheet[4, 0, 0] == 255
    out = tmp_path / "sheet.png"
    arguments = ["so101", "--out", str(out), "--count", "8", "--size", "32"]
    done = CliRunner().invoke(app, ["appearance", *arguments])
    assert done.exit_code == 0 and "is now" not in done.output, done.output
    done = CliRunner().invoke(app, ["looks", *arguments])
    assert done.exit_code == 0 and "is now 'sim2real appearance'" in " ".join(done.output.split()), done.output
    assert cv2.imread(str(out)).shape[:2] == (2 * (192 + CAPTION_PX) + 4, 5 * 196 - 4)


def test_captions_and_rings_say_what_is_seen():
    image = np.full((60, 200, 3), 90, np.uint8)
    sheet = contact_sheet([image, image], 2, captions=["1: object", ""])
    first, second = sheet[:CAPTION_PX, :200], sheet[:CAPTION_PX, 201:]
    assert first.min() < 100 and second.min() == 255  # text, and none
    ringed = marked(image, (50.0, 30.0), 10.0)
    changed = np.argwhere((ringed != image).any(axis=2))
    away = np.hypot(*(changed - (30, 50)).T)  # the line is 3 px wide, and soft at its edges
    assert abs(away - 10).max() < 4.0 and away.mean() == pytest.approx(10.0, abs=0.5)
    white = np.argwhere((ringed == 255).all(axis=2))
    assert abs(np.hypot(*(white - (30, 50)).T) - 10).max() < 1.0 and (image == 90).all()
    assert enlarged(image, 100).shape == (120, 400, 3)
