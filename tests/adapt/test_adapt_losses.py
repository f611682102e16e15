"""What every loss and every setting of an adaptation does to one step of training."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs sim2real[train]")
pytest.importorskip("tensorboard", reason="needs sim2real[train]")

from adapt_maker import CLASSES, scenes  # noqa: E402

from sim2real.adapt import losses  # noqa: E402
from sim2real.adapt import train as training  # noqa: E402
from sim2real.adapt.config import AdaptConfig, load_preset  # noqa: E402
from sim2real.adapt.domains import Domain  # noqa: E402
from sim2real.adapt.networks import Discriminator, Segmenter  # noqa: E402
from sim2real.adapt.train import Trainer  # noqa: E402

LOSSES = ("adversarial", "content", "identity", "task", "perception", "contrastive", "cycle", "paired")
TINY = (
    "image_size=0", "batch_size=4", "steps=10", "pool=0", "threads=1", "bf16=false", "augment=false",
    "generator.width=8", "generator.blocks=1", "generator.noise=0", "generator.from_input=false",
    "discriminator.width=8", "discriminator.noise=0", "task.width=4",
)  # fmt: skip


def config(*more: str, only: str = "") -> AdaptConfig:
    """Tiny; with one loss alone where ``only`` names it."""
    weights = [f"weights.{name}={float(name == only)}" for name in LOSSES] if only else []
    task = [] if only in ("", "task") else ["task.kind=none"]
    return load_preset("graspgan", [*TINY, *weights, *task, *more])


def trainer(settings: AdaptConfig, pairs: bool = False) -> Trainer:
    images, masks = scenes(24, False, 0)
    real, _ = scenes(24, True, 1)
    source = Domain("sim", images, masks, np.arange(24) % 3, pairs=255 - images if pairs else None, classes=CLASSES)
    guide = Segmenter(max(CLASSES) + 1, 4) if settings.weights.perception else None
    return Trainer(settings, source, Domain("real", real), guide)


def weights_of(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


@pytest.mark.parametrize("only", LOSSES)
def test_every_loss_teaches_the_generator(only: str) -> None:
    """With one loss alone the generator moves in one step; with none of it, nothing would."""
    alone = trainer(config(only=only), pairs=True)
    before = weights_of(alone.generator)
    values = alone.update()
    assert values[only] > 0.0
    assert (weights_of(alone.generator) != before).float().mean() > 0.3


def test_values_by_hand() -> None:
    one, two = torch.full((2, 3, 4, 4), 0.25), torch.full((2, 3, 4, 4), 0.75)
    assert losses.identity(one, two) == pytest.approx(0.5)
    assert losses.paired(two, one) == pytest.approx(0.5)
    assert losses.identity(one, one) == losses.paired(two, two) == 0.0


def test_the_pair_is_what_the_generator_should_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(losses, "paired", lambda translated, truth: seen.append(truth) or translated.mean())
    one = trainer(config(only="paired"), pairs=True)
    monkeypatch.setattr(one.target, "sample", lambda sample=one.source.sample: sample())
    drawn = []
    monkeypatch.setattr(one.source, "sample", lambda sample=one.source.sample: drawn.append(sample()) or drawn[-1])
    one.update()
    assert torch.equal(seen[0], drawn[0]["pairs"]) and not torch.equal(seen[0], drawn[0]["images"])


def test_content_is_asked_of_objects_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = losses.content_similarity
    monkeypatch.setattr(losses, "content_similarity", lambda *a: asked.append(a[2]) or original(*a))
    trainer(config(only="content")).update()
    assert 0.0 < asked[0].float().mean() < 0.5


def test_the_task_network_keeps_statistics_of_both_looks() -> None:
    one = trainer(config("task.kind=classify", only="task"))
    one.update()
    norms = [norm for module in one.networks["task"].modules() for norm in getattr(module, "norms", ())]
    assert norms and all(norm.num_batches_tracked == 1 for norm in norms)


def test_spectral_norm_bounds_the_discriminator() -> None:
    settings = config("discriminator.spectral_norm=true").discriminator
    bound, free = Discriminator(settings), Discriminator(config("discriminator.spectral_norm=false").discriminator)
    names = [name for name, _ in bound.named_parameters()]
    assert any("parametrizations" in name for name in names)
    assert not any("parametrizations" in name for name, _ in free.named_parameters())


def test_older_images_come_back_from_the_pool() -> None:
    one = trainer(config("pool=6"))
    first = torch.rand(6, 3, 8, 8)
    assert torch.equal(one._pooled(first), first)
    second = torch.rand(6, 3, 8, 8)
    shown = one._pooled(second)
    old = [any(torch.equal(image, known) for known in first) for image in shown]
    assert 0 < sum(old) < 6
    none = trainer(config("pool=0"))
    none._pooled(first)
    assert torch.equal(none._pooled(second), second)


def test_weights_are_averaged() -> None:
    """Slowly at first too: the average of few steps is one of few steps."""
    for average, step, share in ((0.9, 0, 0.1), (0.9, 1000, 0.9), (0.0, 1000, 0.0)):
        one = trainer(config(f"average={average}", "steps=2000"))
        one.step = step - 1 if step else 0
        before = weights_of(one.averages["generator"])
        one.update()
        wanted = share * before + (1.0 - share) * weights_of(one.generator)
        assert torch.allclose(weights_of(one.averages["generator"]), wanted, atol=1e-6)


def test_a_discriminator_sees_noise_that_fades_and_shifted_images() -> None:
    noisy = trainer(config("discriminator.noise=0.2"))
    image = torch.full((2, 3, 32, 32), 0.5)
    assert float(noisy._seen(image)[0].std()) == pytest.approx(0.2, rel=0.1)
    noisy.step = 9
    assert float(noisy._seen(image)[0].std()) == pytest.approx(0.02, rel=0.1)
    moved = trainer(config("augment=true"))
    ramp = torch.linspace(0, 1, 32).expand(2, 3, 32, 32)
    one, other = moved._seen(ramp, ramp)
    assert torch.equal(one, other) and not torch.equal(one, ramp)
    assert torch.equal(trainer(config())._seen(ramp)[0], ramp)


def test_half_precision_is_used_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    types = []
    original = training.losses.adversarial_generator
    monkeypatch.setattr(
        training.losses, "adversarial_generator", lambda scores: types.append(scores[0].dtype) or original(scores)
    )
    trainer(config("bf16=true")).update()
    trainer(config("bf16=false")).update()
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        trainer(config("bf16=null")).update()
    assert types == [torch.bfloat16, torch.float32] * 2


def test_minibatch_std_tells_alike_batches_from_varied_ones() -> None:
    settings = config("discriminator.minibatch_std=true").discriminator
    torch.manual_seed(0)
    network = Discriminator(settings).eval()
    varied = torch.rand(6, 3, 32, 32)
    alike = varied[:1].expand(6, -1, -1, -1)
    assert not torch.allclose(network(varied)[0][:1], network(alike)[0][:1], atol=1e-5)
    without = Discriminator(config("discriminator.minibatch_std=false").discriminator).eval()
    assert torch.allclose(without(varied)[0][:1], without(alike)[0][:1], atol=1e-5)


def test_the_keys_of_the_contrastive_loss_are_taken_as_given() -> None:
    queries, keys = (torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    queries.requires_grad_()
    keys.requires_grad_()
    losses.contrastive(queries, keys).backward()
    assert queries.grad is not None and queries.grad.abs().max() > 0 and keys.grad is None
