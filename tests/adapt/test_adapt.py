"""Losses, networks, metrics and configuration of pixel-level adaptation, against hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs sim2real[train]")

from adapt_maker import scenes  # noqa: E402

from sim2real.adapt import losses  # noqa: E402
from sim2real.adapt.config import PRESETS, DiscriminatorConfig, GeneratorConfig, load_preset  # noqa: E402
from sim2real.adapt.data import Data  # noqa: E402
from sim2real.adapt.domains import Domain  # noqa: E402
from sim2real.adapt.metrics import features, frechet_distance, kernel_distance, mean_iou  # noqa: E402
from sim2real.adapt.networks import (  # noqa: E402
    Classifier,
    Discriminator,
    Generator,
    Segmenter,
    exemplar_of,
    set_domain,
)
from sim2real.adapt.objects import edge_drift, object_changes  # noqa: E402
from sim2real.adapt.translate import export_generator, translate, translate_any_size  # noqa: E402
from sim2real.errors import AdaptationError, ConfigError  # noqa: E402
from sim2real.runtime.translation import Translator  # noqa: E402


def test_content_similarity_forgives_brightness_but_not_texture() -> None:
    source = torch.rand(2, 3, 8, 8)
    foreground = torch.zeros(2, 8, 8)
    foreground[:, 2:6, 2:6] = 1
    assert losses.content_similarity(source, source + 0.2, foreground) == pytest.approx(0.0, abs=1e-6)
    changed = source.clone()
    changed[:, :, 2:6, 2:4] += 0.2  # half of the foreground: mean d² = 0.02, mean(d)² = 0.01
    assert losses.content_similarity(source, changed, foreground) == pytest.approx(0.01, abs=1e-5)
    background = source.clone()
    background[:, :, 0] += 0.5
    assert losses.content_similarity(source, background, foreground) == pytest.approx(0.0, abs=1e-6)


def test_content_similarity_of_an_empty_mask_is_nothing() -> None:
    assert losses.content_similarity(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 4)) == 0.0


def test_least_squares_scores() -> None:
    real, fake = [torch.full((1, 1, 2, 2), 1.0)], [torch.full((1, 1, 2, 2), 0.5)]
    assert losses.adversarial_discriminator(real, fake) == pytest.approx(0.125)
    assert losses.adversarial_generator(fake) == pytest.approx(0.25)


def test_contrastive_is_small_where_places_match() -> None:
    places = torch.nn.functional.normalize(torch.eye(8)[None], dim=-1)
    assert losses.contrastive(places, places) < 1e-4
    assert losses.contrastive(places.roll(1, dims=1), places) > 5.0


def test_reversed_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    (losses.reverse_gradient(x, 0.5) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-0.5, -1.0, -1.5]


def test_perception_consistency_and_teacher() -> None:
    logits = torch.randn(2, 3, 4, 4)
    assert losses.perception_consistency(logits, logits) == pytest.approx(0.0, abs=1e-6)
    assert losses.perception_consistency(logits, -logits) > 0.1
    sure, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.1, 0.0]])
    student = torch.tensor([[0.0, 2.0]])
    assert losses.teacher_agreement(student, unsure, 0.9) == 0.0
    assert losses.teacher_agreement(student, sure, 0.9) == pytest.approx(2.0 + np.log1p(np.exp(-2.0)), abs=1e-3)


def test_segmentation_prefers_the_truth() -> None:
    masks = torch.zeros(1, 8, 8, dtype=torch.long)
    masks[0, 2:4, 2:4] = 1
    right = torch.nn.functional.one_hot(masks, 2).movedim(-1, 1) * 10.0
    assert losses.segmentation(right, masks) < 0.05
    nothing = torch.zeros(1, 2, 8, 8)
    nothing[:, 0] = 10.0
    assert losses.segmentation(nothing, masks) > 0.8  # Dice sees the object, small as it is


@pytest.mark.parametrize(
    ("kind", "extra"), [("unet", {}), ("residual", {}), ("unet", {"noise": 3}), ("residual", {"exemplar": True})]
)
def test_generators_keep_the_shape_and_are_exported(kind: str, extra: dict[str, object]) -> None:
    network = Generator(GeneratorConfig.model_validate({"kind": kind, "width": 8, "blocks": 1, **extra}))
    images, _ = scenes(5, False, 0)
    pieces, _ = scenes(3, True, 1)
    exemplars = pieces if "exemplar" in extra else None
    out = translate(network, images, exemplars)
    assert out.shape == images.shape
    assert out.dtype == np.uint8
    deployed = Translator.from_onnx(export_generator(network, (32, 32)), exemplars)
    assert np.abs(deployed(images).astype(int) - out).max() <= 1
    larger = images.repeat(2, axis=1).repeat(2, axis=2)
    assert translate_any_size(deployed, larger, np.arange(5)).shape == larger.shape
    with pytest.raises(AdaptationError, match=r"takes images of 32 x 32, these are 64 x 64"):
        deployed(larger)


def test_noise_and_exemplar_change_the_output_and_numbers_repeat_it() -> None:
    torch.manual_seed(0)
    network = Generator(GeneratorConfig(width=8, noise=3))
    images, _ = scenes(1, False, 0)
    deployed = Translator.from_onnx(export_generator(network, (32, 32)))
    first, again, other = (deployed(images, np.array([n])) for n in (7, 7, 8))
    assert (first == again).all()
    assert (first != other).any()


def test_a_generator_with_exemplars_begins_as_what_it_starts_from() -> None:
    network = Generator(GeneratorConfig(width=8, exemplar=True))
    exemplar = 0.1 + 0.8 * torch.rand(2, 3, 32, 32)
    assert (network(torch.rand(2, 3, 32, 32), None, exemplar) - exemplar).abs().mean() < 0.05
    kept = Generator(GeneratorConfig(width=8, from_input=True))(exemplar)
    assert (kept - exemplar).abs().mean() < 0.05
    with pytest.raises(ValueError, match="not from both"):
        GeneratorConfig(exemplar=True, from_input=True)


def test_exemplars_are_pieces() -> None:
    ramp = torch.linspace(0, 1, 32).expand(64, 3, 32, 32)
    pieces = exemplar_of(ramp, torch.Generator().manual_seed(0))
    spans = pieces.amax(dim=(1, 2, 3)) - pieces.amin(dim=(1, 2, 3))
    assert spans.min() > 0.2
    assert spans.max() < 0.56


def test_discriminator_scales_and_minibatch_std() -> None:
    network = Discriminator(DiscriminatorConfig(width=8, layers=2, scales=2, minibatch_std=True))
    scores = network(torch.rand(8, 3, 32, 32))
    assert [tuple(s.shape) for s in scores] == [(8, 1, 8, 8), (8, 1, 4, 4)]


def test_domains_have_statistics_of_their_own() -> None:
    network = Classifier(3, 4, domains=2).train()
    set_domain(network, 1)
    network(torch.rand(16, 3, 32, 32) * 0.2)
    norm = network.stages[1]
    assert norm.norms[0].num_batches_tracked == 0
    assert norm.norms[1].num_batches_tracked == 1


def test_segmenter_gives_every_pixel_a_class() -> None:
    assert Segmenter(3, 4)(torch.rand(2, 3, 32, 64)).shape == (2, 3, 32, 64)


def test_distances_of_like_and_unlike_images() -> None:
    first, _ = scenes(60, True, 0)
    second, _ = scenes(60, True, 1)
    other, _ = scenes(60, False, 2)
    a, b, c = features(first), features(second), features(other)
    assert abs(kernel_distance(a, b)) < 0.01 * kernel_distance(c, b)
    assert frechet_distance(a, b) < 0.2 * frechet_distance(c, b)


def test_a_distance_to_few_real_images_does_not_hang_on_which() -> None:
    """Features are scaled by how much they vary over all real images: of five, some hardly vary by chance."""
    adapted, real = features(scenes(60, False, 0)[0]), features(scenes(200, True, 1)[0])
    rng = np.random.default_rng(0)
    few = [rng.permutation(200)[:5] for _ in range(20)]
    with_all = [kernel_distance(adapted, real[rows], real) for rows in few]
    alone = [kernel_distance(adapted, real[rows]) for rows in few]
    assert max(with_all) / min(with_all) < 2.0 < max(alone) / min(alone)
    assert np.median(with_all) == pytest.approx(kernel_distance(adapted, real), rel=0.3)


def test_small_sets_of_real_images_hold_out_more_of_them() -> None:
    source = Domain("sim", np.zeros((100, 8, 8, 3), np.uint8))
    for count, held in ((24, 8), (50, 17), (100, 20), (200, 20), (1000, 100), (4000, 200)):
        data = Data.of(source, Domain("real", np.zeros((count, 8, 8, 3), np.uint8)), 0)
        assert len(data.target_held) == held and len(data.target) == count - held


def test_no_pair_of_a_held_out_image_is_trained_on() -> None:
    rng = np.random.default_rng(0)
    rendered, plain = (rng.integers(0, 255, (40, 8, 8, 3)).astype(np.uint8) for _ in range(2))
    data = Data.of(Domain("sim", rendered, pairs=plain), Domain("real", plain), 0)
    assert data.source_held.pairs is not None
    np.testing.assert_array_equal(data.target_held.images, data.source_held.pairs)
    known = {image.tobytes() for image in data.target.images}
    assert len(known) == 36 and not known & {image.tobytes() for image in data.target_held.images}


def test_frechet_distance_of_two_gaussians() -> None:
    """‖μ‖² + (σ₁ - σ₂)² in one dimension; the sample's own statistics are exact by construction."""
    x = np.random.default_rng(0).standard_normal((500, 1))
    x = (x - x.mean()) / x.std(ddof=1)
    assert frechet_distance(np.hstack((x, -x)), np.hstack((3 * x + 2, -3 * x))) == pytest.approx(4 + 8, rel=1e-6)


def test_object_changes_are_measured() -> None:
    before = np.zeros((5, 64, 64), np.uint8)
    before[:4, 20:30, 20:30] = 1
    after = np.zeros_like(before)
    after[0, 20:30, 20:30] = 1
    after[1, 23:33, 24:34] = 1  # moved by (3, 4): 5 px
    after[2, 20:30, 25:35] = 1
    after[4, 40:50, 40:50] = 1  # 3 has vanished, 4 is new
    change = object_changes(before, after, before, 2)[1]
    assert change.drift_px[:3].tolist() == pytest.approx([0, 5, 5])
    assert change.iou[2] == pytest.approx(50 / 150)
    assert change.removed.tolist() == [False, False, False, True, False]
    assert change.invented.tolist() == [False, False, False, False, True]


def test_edges_are_followed_through_any_colour() -> None:
    images, masks = scenes(12, False, 0, side=64)
    other = (255 - images)[..., [1, 2, 0]] // 2
    drift, match = edge_drift(images, other, masks > 0, 6)
    assert (drift == 0).all()
    assert match.min() > 0.9
    drift, _ = edge_drift(images, np.roll(other, (3, -4), axis=(1, 2)), masks > 0, 6)
    assert drift == pytest.approx(np.full(12, 5.0))
    flat = np.random.default_rng(0).integers(100, 120, images.shape).astype(np.uint8)
    assert edge_drift(images, flat, masks > 0, 6)[1].max() < 0.6
    assert np.isnan(edge_drift(images, other, np.zeros(masks.shape, bool), 6)[1]).all()


def test_mean_iou_leaves_the_background_out() -> None:
    truth = np.zeros((1, 4, 4), np.uint8)
    truth[0, :2] = 1
    found = np.zeros((1, 4, 4), np.int64)
    found[0, 0] = 1
    assert mean_iou(found, truth, 3) == pytest.approx(0.5)


def test_presets_load_and_faults_are_named() -> None:
    names = {load_preset(path.stem).name for path in PRESETS.glob("*.yaml")}
    assert names == {"pixelda", "graspgan", "cut", "cyclegan", "rcan"}
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        load_preset("cut", ["generator.widht=8"])
    with pytest.raises(ConfigError, match="give a YAML file or one of: cut"):
        load_preset("nonsense")
    with pytest.raises(ConfigError, match=r"task\.kind"):
        load_preset("pixelda", ["task.kind=none"])
    with pytest.raises(ConfigError, match="key=value"):
        load_preset("cut", ["steps"])
