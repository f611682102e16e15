"""Photometric augmentation: every term shows, what is asked for is done, nothing else changes."""

import numpy as np
import pytest
import torch

pytest.importorskip("kornia", reason="augmentation needs sim2real[vision]")

from sim2real.errors import ConfigError
from sim2real.perceive.augment import PARAMETERS, TERMS, Augmentation, apply, audit_augmentation, chosen
from sim2real.sim.render.textures import procedural

NAMES = list(PARAMETERS)


def pictures(count=6, side=64):
    rng = np.random.default_rng(0)
    images = np.stack([procedural(rng, kind) for kind in ("noise", "checker", "gradient") * (count // 3)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()[..., :side, :side] / 255.0


def params(count, **values):
    table = np.tile([p.nominal for p in PARAMETERS.values()], (count, 1))
    for name, value in values.items():
        table[:, NAMES.index(name)] = value
    return table


def done(images, **values):
    return apply(images, params(len(images), **values), torch.Generator().manual_seed(3))


def test_every_term_changes_pixels():
    effects = audit_augmentation(pictures())
    assert set(effects) == set(TERMS) and len(effects) == 11
    assert [name for name, effect in effects.items() if effect < 0.1] == []


def test_an_angle_of_motion_is_dead_without_motion():
    assert audit_augmentation(pictures(3), chosen(("motion_angle",)))["motion_angle"] < 1e-3


def test_without_terms_nothing_changes():
    images = pictures().clamp(1e-3, 1.0)
    torch.testing.assert_close(Augmentation({})(images), images, atol=1e-6, rtol=0)


def test_the_same_seed_gives_the_same_images_and_another_one_others():
    images = pictures()
    first, again, other = (Augmentation(seed=seed)(images) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert float((first - other).abs().mean()) > 0.02
    assert first.shape == images.shape and 0.0 <= float(first.min()) and float(first.max()) <= 1.0


def test_light_is_multiplied_and_colours_are_tinted():
    grey = torch.full((2, 3, 32, 32), 0.3)
    torch.testing.assert_close(done(grey, exposure=2.0), torch.full_like(grey, 0.6), atol=1e-5, rtol=0)
    red = done(grey, white_red=1.2)
    torch.testing.assert_close(red[:, 0], torch.full((2, 32, 32), 0.36), atol=1e-5, rtol=0)
    torch.testing.assert_close(red[:, 1:], grey[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(done(grey, gamma=2.0), torch.full_like(grey, 0.09), atol=1e-5, rtol=0)


def test_a_vignette_darkens_corners_only():
    white = done(torch.ones(1, 3, 33, 33), vignette=0.4)[0, 0]
    assert float(white[16, 16]) == pytest.approx(1.0) and float(white[0, 0]) == pytest.approx(0.6)


def test_blur_and_motion_spread_a_point_as_far_as_asked():
    point = torch.zeros(1, 3, 33, 33)
    point[..., 16, 16] = 1.0
    soft = done(point, blur=1.0)[0, 0]
    u = (torch.arange(33.0) - 16)[None, :]
    soft = (soft - 1e-4).clamp_min(0.0)
    assert float((soft * u * u).sum() / soft.sum()) == pytest.approx(1.0, abs=0.15)
    streak = (done(point, motion=5.0, motion_angle=0.0)[0, 0] - 1e-4).clamp_min(0.0)
    assert int((streak[16] > 0.05).sum()) == 5 and float(streak[15].max()) < 0.02


def test_noise_has_the_standard_deviation_asked_for():
    grey = torch.full((4, 3, 64, 64), 0.5)
    assert float(done(grey, noise=0.05).std()) == pytest.approx(0.05, rel=0.05)


def test_a_patch_hides_as_much_as_asked():
    images = torch.zeros(40, 3, 64, 64)
    hidden = (done(images, occlusion=16.0).amax(dim=1) > 0.01).float().sum(dim=(1, 2))
    assert 100 < float(hidden.median()) <= 300  # 256, less what lies outside


def test_compression_is_that_of_jpeg():
    cv2 = pytest.importorskip("cv2", reason="compared with OpenCV's JPEG")
    images = pictures(6)[:, :, :50, :40]  # no multiples of 16
    got = (done(images, compression=50.0) * 255).round()
    for ours, image in zip(got, images, strict=True):
        before = (image.permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)
        theirs = cv2.imdecode(cv2.imencode(".jpg", before, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
        off = np.abs(ours.permute(1, 2, 0).numpy()[..., ::-1] - theirs)
        lost = np.abs(before.astype(float) - theirs)
        assert off.mean() < 0.6 * lost.mean() + 1.0, "nearer to OpenCV's JPEG than the original is"


def test_wrong_names_and_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"no photometric terms \['blurr'\]"):
        chosen(("blur", "blurr"))
    assert set(chosen(("blur",))) == {"blur"} and chosen("all") == TERMS
    with pytest.raises(ConfigError, match="are wanted"):
        apply(torch.zeros(3, 32, 32), params(3), torch.Generator())
