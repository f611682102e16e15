"""Training, resuming, the gate, bad input and the command line of pixel-level adaptation."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs sim2real[train]")
pytest.importorskip("tensorboard", reason="needs sim2real[train]")

from adapt_maker import CLASSES, scenes, write_scenes  # noqa: E402
from real_data import whole  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from sim2real.adapt.apply import apply  # noqa: E402
from sim2real.adapt.check import check, load_run_config  # noqa: E402
from sim2real.adapt.checkpoints import best_check  # noqa: E402
from sim2real.adapt.config import AdaptConfig, GateConfig, load_preset  # noqa: E402
from sim2real.adapt.dann import train_classifier  # noqa: E402
from sim2real.adapt.data import Data, load_data  # noqa: E402
from sim2real.adapt.detector import train_detector  # noqa: E402
from sim2real.adapt.domains import Domain, check_pair, load_domain  # noqa: E402
from sim2real.adapt.downstream import commanded_change, located, located_change  # noqa: E402
from sim2real.adapt.gate import judge  # noqa: E402
from sim2real.adapt.metrics import predict  # noqa: E402
from sim2real.adapt.networks import Segmenter  # noqa: E402
from sim2real.adapt.objects import spill  # noqa: E402
from sim2real.adapt.run import adapt  # noqa: E402
from sim2real.adapt.train import Trainer  # noqa: E402
from sim2real.adapt.training import run_training  # noqa: E402
from sim2real.cli.main import app  # noqa: E402
from sim2real.config import prepare_run  # noqa: E402
from sim2real.errors import AdaptationError, ConfigError  # noqa: E402
from sim2real.evaluate.adaptation import write_adaptation_report  # noqa: E402
from sim2real.images.dataset import read_dataset  # noqa: E402
from sim2real.runtime.bundle import PolicyBundle  # noqa: E402
from sim2real.runtime.perception import PerceptionBundle  # noqa: E402
from sim2real.runtime.translation import Translator  # noqa: E402

# One small run and one trained judge are shared.
pytestmark = pytest.mark.xdist_group("adapt_run")

SMALL = ["image_size=0", "batch_size=4", "steps=6", "check_every=3", "generator.width=8", "discriminator.width=8"]
SMALL += [
    "generator.from_input=false",
    "generator.blocks=1",
    "task.width=4",
    "pool=3",
    "threads=1",
    "gate.detector_steps=60",
]


def small(preset: str, *more: str) -> AdaptConfig:
    return load_preset(preset, [*SMALL, *more])


def domains(count: int = 40) -> tuple[Domain, Domain]:
    images, masks = scenes(count, False, 0)
    real, _ = scenes(count, True, 1)
    labels = np.arange(count) % 3
    return Domain("sim", images, masks, labels, classes=CLASSES), Domain("real", real)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("datasets")
    return (
        write_scenes(folder / "sim", 60, camera=False, seed=0),
        write_scenes(folder / "real", 50, camera=True, seed=1, masks=False),
    )


@pytest.fixture(scope="module")
def finished(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, which the gate has looked at."""
    run = tmp_path_factory.mktemp("run") / "graspgan"
    config = small("graspgan")
    finished = adapt(config, load_data(config, *folders), run)
    assert finished is not None
    write_adaptation_report(run, config.name, finished)
    return run


@pytest.mark.parametrize("preset", ["pixelda", "graspgan", "cut", "cyclegan", "rcan"])
def test_every_preset_trains_every_network(preset: str) -> None:
    source, target = domains()
    if preset == "rcan":
        source = Domain("sim", source.images, source.masks, pairs=target.images, classes=CLASSES)
    guide = Segmenter(2, 4) if preset == "graspgan" else None
    trainer = Trainer(small(preset), source, target, guide)
    before = {name: value.clone() for name, value in trainer.networks.named_parameters()}
    losses = trainer.update()
    assert ("perception" in losses) == (guide is not None)
    assert all(np.isfinite(value) for value in losses.values())
    still = {name for name, value in trainer.networks.named_parameters() if (value == before[name]).all()}
    assert not {name for name in still if name.endswith("weight")}, "these have no gradient"


@pytest.mark.parametrize("setting", ["generator.noise=2", "generator.from_input=true", "augment=true", "bf16=false"])
def test_options_train(setting: str) -> None:
    trainer = Trainer(small("cut", setting), *domains())
    assert np.isfinite(list(trainer.update().values())).all()


def test_the_mean_teacher_starts_late() -> None:
    config = small("pixelda", "task.kind=classify", "task.mean_teacher=1.0", "steps=4")
    trainer = Trainer(config, *domains())
    assert ["teacher" in trainer.update() for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize("preset", ["pixelda", "cyclegan"])
def test_a_killed_run_goes_on_bit_exactly(preset: str, tmp_path: Path) -> None:
    config = small(preset, "augment=true", "task.mean_teacher=1.0", "discriminator.noise=0.1")
    whole = Trainer(config, *domains())
    assert run_training(whole, tmp_path)
    (tmp_path / "checkpoint.pt").unlink()

    class KilledError(Exception):
        pass

    def kill(trainer: Trainer, figures: dict[str, float]) -> None:
        if trainer.step == 6:
            raise KilledError

    first = Trainer(config, *domains())
    with pytest.raises(KilledError):
        run_training(first, tmp_path, kill)  # the checkpoint is that of step 3
    torch.manual_seed(99)
    second = Trainer(config, *domains())
    assert run_training(second, tmp_path)
    a, b = whole.state(), second.state()
    for part in ("networks", "averages"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part]), part
    assert torch.equal(a["random"], b["random"])
    assert all(torch.equal(x, y) for x, y in zip(a["pool"], b["pool"], strict=True))


def test_ctrl_c_leaves_a_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(small("cut", "steps=100000", "check_every=100000"), *domains())
    before = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    assert not run_training(trainer, tmp_path)
    assert 0 < torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == trainer.step
    assert signal.getsignal(signal.SIGINT) is before  # ignored where the tests run in the background


def test_a_loss_that_is_not_finite_is_one_clear_error(tmp_path: Path) -> None:
    trainer = Trainer(small("cut", "steps=50", "bf16=false"), *domains())
    run_training(Trainer(small("cut", "steps=3"), *domains()), tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        trainer.generator.out.weight[0] = float("nan")
    with pytest.raises(AdaptationError, match=r"not finite at step 0; start again .* lower learning_rate"):
        trainer.update()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_other_settings_are_refused(tmp_path: Path) -> None:
    prepare_run(small("cut"), tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"begun")
    prepare_run(small("cut"), tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        prepare_run(small("cut", "seed=1"), tmp_path)


# The gate


@pytest.fixture(scope="module")
def judged() -> tuple[Domain, torch.nn.Module]:
    images, masks = scenes(300, False, 3)
    source = Domain("sim", images[:260], masks[:260], classes=CLASSES)
    held = Domain("sim", images[260:], masks[260:], classes=CLASSES)
    torch.set_num_threads(1)
    return held, train_detector(source, 2, 400)


def recolour(images: np.ndarray) -> np.ndarray:
    """Another look, nothing moved: colours swapped, darker, a gradient of light."""
    light = np.linspace(0.5, 1.0, images.shape[2])[:, None]
    return (images[..., [2, 0, 1]] * light * np.array([0.9, 0.6, 0.8])).astype(np.uint8)


def reasons(translate: object, judged: tuple[Domain, torch.nn.Module]) -> str:
    held, detector = judged
    verdict, _ = judge(translate, held, GateConfig(), detector, None)  # type: ignore[arg-type]
    assert verdict.passed == (not verdict.reasons)
    return "; ".join(verdict.reasons)


def test_the_gate_lets_a_change_of_look_pass(judged: tuple[Domain, torch.nn.Module]) -> None:
    assert reasons(recolour, judged) == ""


def test_the_gate_names_an_object_that_moves(judged: tuple[Domain, torch.nn.Module]) -> None:
    # 2 px of 32 are 8 px of 128
    told = reasons(lambda x: recolour(np.roll(x, 2, axis=2)), judged)
    assert "moves object: by 8.0 px" in told
    assert "moves what the detector takes for object" in told


def test_the_gate_names_an_object_that_vanishes(judged: tuple[Domain, torch.nn.Module]) -> None:
    def remove(images: np.ndarray) -> np.ndarray:
        result = images.copy()
        result[::4] = images[::4, :3, :3].mean(axis=(1, 2))[:, None, None]
        return result

    told = reasons(remove, judged)
    assert "loses the edges of object in 25.0%" in told
    assert "makes 25.0% of what is seen of object vanish" in told


def test_the_gate_names_an_object_that_is_invented(judged: tuple[Domain, torch.nn.Module]) -> None:
    def invent(images: np.ndarray) -> np.ndarray:
        """A second square in the corner that is farthest from the first, in every fourth image."""
        result = images.copy()
        for i in range(0, len(images), 4):
            ys, xs = np.nonzero(images[i, ..., 0] > 160)
            top, left = (1 if ys.mean() > 16 else 21), (1 if xs.mean() > 16 else 21)
            result[i, top : top + 10, left : left + 10] = 204
        return result

    assert "invents object in" in reasons(invent, judged)


def test_the_gate_names_a_smear_that_touches_an_object(judged: tuple[Domain, torch.nn.Module]) -> None:
    held, _ = judged
    assert held.masks is not None

    def smear(images: np.ndarray, width: int) -> np.ndarray:
        """Half of the object's right side runs into what lies beside it."""
        result = recolour(images)
        for image, mask in zip(result, held.masks, strict=True):
            ys, xs = np.nonzero(mask)
            middle, half = (ys.min() + ys.max()) // 2, (ys.max() - ys.min()) // 4
            beside = slice(xs.max() + 1, xs.max() + 1 + width)
            image[middle - half : middle + half + 1, beside] = np.median(image[mask == 1], axis=0)
        return result

    verdict, _ = judge(lambda x: smear(x, 3), held, GateConfig(), judged[1], None)
    assert any(reason.startswith("smears object over") for reason in verdict.reasons), verdict
    verdict, _ = judge(lambda x: smear(x, 0), held, GateConfig(), judged[1], None)
    assert verdict.passed and verdict.figures["object.spilled"] < 0.01


def test_shadows_and_noise_are_no_smear() -> None:
    images, masks = scenes(30, False, 3)
    shaded = images.astype(float)
    for image, mask in zip(shaded, masks, strict=True):
        shadow = (np.roll(mask, (3, 4), axis=(0, 1)) == 1) & (mask == 0)
        image[shadow] *= 0.4
    noisy = np.clip(shaded + np.random.default_rng(0).normal(0, 8, shaded.shape), 0, 255).astype(np.uint8)
    assert np.nanmean(spill(images, noisy, masks, 1, 2)) < 0.01


def test_the_gate_names_a_worse_task(judged: tuple[Domain, torch.nn.Module]) -> None:
    held, detector = judged
    verdict, _ = judge(lambda x: 255 - x, held, GateConfig(task_drop=0.0), None, detector)
    assert not verdict.passed
    assert "worsens the task: mean IoU" in verdict.reasons[0]
    assert verdict.not_judged == ("objects: the images have no masks",)


def test_the_gate_refuses_where_nothing_can_be_judged() -> None:
    images, _ = scenes(8, False, 0)
    verdict, _ = judge(recolour, Domain("sim", images), GateConfig(), None, None)
    assert not verdict.passed
    assert "nothing could be judged" in verdict.reasons[0]


def test_a_checkpoint_that_passes_is_kept_before_a_nearer_one_that_does_not() -> None:
    rows = [{"step": 1, "kid": 3.0, "passed": True}, {"step": 2, "kid": 1.0, "passed": False}]
    rows.append({"step": 3, "kid": 2.0, "passed": True})
    best = best_check(rows)
    assert best is not None
    assert best["step"] == 3


# Whole runs


def test_a_run_leaves_what_is_needed(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "generator.onnx", "gate.json", "metrics.json", "report.html", "best.pt"} <= names
    assert any(name.startswith("events.out") for name in names)
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["kid_real"] < metrics["kid_rendered"]
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png") == 3
    assert load_run_config(finished) == small("graspgan")


@pytest.mark.parametrize("content", ['{"passed": tr', '{"passed": true, "reasons": [], "files": {}}'])
def test_check_mends_a_verdict_that_is_broken_or_of_other_files(
    finished: Path, folders: tuple[Path, Path], tmp_path: Path, content: str
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "gate.json").write_text(content)
    with pytest.raises(AdaptationError, match="adapt check"):
        Translator(run, anyway=True)
    assert check(run, folders[0]).objects_judged
    assert Translator(run, anyway=True).objects_judged


def test_apply_carries_everything_over(finished: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    count = apply(finished, folders[0], tmp_path / "out", anyway=True)
    before, after = read_dataset(folders[0]), read_dataset(tmp_path / "out")
    assert count == len(after) == 60
    assert [f["object_pos"] for f in after.frames] == [f["object_pos"] for f in before.frames]
    assert before.masks is not None and after.masks is not None
    assert (before.masks == after.masks).all()
    assert (before.images != after.images).any()
    assert after.about["adapted"]["preset"] == "graspgan"
    (tmp_path / "out" / "frames.jsonl").write_text(
        "".join((tmp_path / "out" / "frames.jsonl").read_text().splitlines(keepends=True)[:21])
    )
    assert apply(finished, folders[0], tmp_path / "out", anyway=True, resume=True) == 60
    assert (read_dataset(tmp_path / "out").images == after.images).all()


def test_a_refused_generator_is_not_applied(finished: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    gate = json.loads((finished / "gate.json").read_text())
    assert not gate["passed"], "six steps make no generator"
    with pytest.raises(AdaptationError, match="the gate refused"):
        apply(finished, folders[0], tmp_path / "out")
    with pytest.raises(ConfigError, match="no finished adaptation"):
        Translator(tmp_path)


def test_how_far_a_localizers_answers_move(finished: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    from perception_bundles import camera, make_red_bundle, red_dot

    bundle = make_red_bundle(tmp_path / "red")
    places = np.array([(0.24, 0.02), (0.3, 0.12), (0.28, -0.1), (0.22, -0.03)])
    further = places + np.array((0.02, 0.0))
    before, after = (np.stack([red_dot(camera(), place) for place in where]) for where in (places, further))
    locator = PerceptionBundle.load(bundle).locator()
    found, moved = located(locator, before), located(locator, after)
    figures = located_change(found, moved, np.pad(places, ((0, 0), (0, 1))))
    assert figures["localizer.moved_median_m"] == pytest.approx(0.02, abs=0.004)
    assert figures["localizer.error_before_m"] < 0.004
    assert figures["localizer.error_after_m"] == pytest.approx(0.02, abs=0.004)
    still = located_change(found, located(locator, before))
    assert still == {"localizer.moved_median_m": 0.0, "localizer.moved_p95_m": 0.0}
    with pytest.raises(AdaptationError, match=r"localizer takes images of 128 x 128, the generator of 32 x 32"):
        check(finished, folders[0], bundle)
    with pytest.raises(ConfigError, match="--policy needs --localizer"):
        check(finished, folders[0], policy=bundle)


def test_how_far_a_policys_commands_move(tmp_path: Path) -> None:
    """The pushing controller, an arm before the object: it steps where the object seems to be."""
    from arm_bundles import make_controller_bundle

    bundle = PolicyBundle.load(make_controller_bundle(tmp_path / "push", "so101_push"))
    pose = np.tile([0.0, -0.2, 0.6, 1.1, 0.0, 0.2], (3, 1))
    seen = np.array([(0.25, 0.0, 0.02), (0.3, 0.1, 0.02), (0.28, -0.1, 0.02)])
    assert set(commanded_change(bundle, pose, seen, seen).values()) == {0.0}
    near, far = (commanded_change(bundle, pose, seen, seen + np.array((0.0, by, 0.0))) for by in (0.005, 0.02))
    assert 0.0 < near["policy.moved_median_rad"] < far["policy.moved_median_rad"] <= far["policy.moved_p95_rad"]
    assert 0.0 < near["policy.moved_share"] < far["policy.moved_share"] < 2.0
    with pytest.raises(AdaptationError, match=r"an arm with 2 joints, the policy .* moves 6"):
        commanded_change(bundle, pose[:, :2], seen, seen)
    reach = PolicyBundle.load(make_controller_bundle(tmp_path / "reach", "so101_reach"))
    with pytest.raises(AdaptationError, match="reads no object"):
        commanded_change(reach, pose, seen, seen)


def test_the_command_line(finished: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    sim, real = map(str, folders)
    run = str(shutil.copytree(finished, tmp_path / "run"))
    sets = [part for setting in SMALL for part in ("--set", setting)]
    trained = CliRunner().invoke(
        app, ["adapt", "--sim", sim, "--real", real, "--out", run, *sets]
    )  # goes on: at its end
    assert trained.exit_code == 1, trained.output
    assert "Refused" in trained.output
    assert "report.html" in trained.output
    checked = CliRunner().invoke(app, ["adapt", "check", run, "--sim", sim, "--json", str(tmp_path / "gate.json")])
    assert checked.exit_code == 1
    assert json.loads((tmp_path / "gate.json").read_text())["reasons"]
    applied = CliRunner().invoke(app, ["adapt", "apply", run, sim, str(tmp_path / "out"), "--anyway"])
    assert applied.exit_code == 0, applied.output
    assert "60 frames" in applied.output
    assert isinstance(CliRunner().invoke(app, ["adapt", "--sim", sim]).exception, ConfigError)


def test_dann_learns_labels_that_hold_on_the_other_look() -> None:
    """Classes are sizes of the object; the camera's look is another."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    def make(count: int, camera: bool) -> Domain:
        labels = rng.integers(0, 2, count)
        images = np.full((count, 32, 32, 3), 90 if camera else 20, np.uint8)
        for image, label in zip(images, labels, strict=True):
            top, left = rng.integers(4, 12, 2)
            side = 6 + 10 * label
            image[top : top + side, left : left + side] = (60, 120, 250) if camera else 220
        noisy = images + rng.integers(0, 20, images.shape).astype(np.uint8)
        return Domain("", noisy, labels=labels.astype(np.int64))

    source, target = make(200, False), make(200, True)
    network = train_classifier(source, Domain("", target.images), 60, width=8, batch_size=16)
    assert (predict(network, target.images, 1) == target.labels).mean() > 0.85


# Bad input


def write_images(folder: Path, images: list[np.ndarray]) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i:03d}.png"), image)
    return folder


def photographs(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(scenes(count, True, seed)[0])


def test_bad_images_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = photographs(30)
    folder = write_images(tmp_path / "real", [*images, images[0], np.zeros((32, 32, 3), np.uint8)])
    (folder / "broken.png").write_bytes(b"no image")
    domain = load_domain(folder, "real")
    assert len(domain) == 30
    assert domain.skipped == {"unreadable": 1, "flat": 1, "duplicate": 1}
    assert "left out 1 unreadable, 1 flat, 1 duplicate" in caplog.text


def test_images_of_mixed_sizes_are_brought_to_one(tmp_path: Path) -> None:
    images = photographs(20)
    images[3] = cv2.resize(images[3], (64, 48))
    domain = load_domain(write_images(tmp_path / "real", images), "real", size=(32, 32))
    assert domain.images.shape == (20, 32, 32, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (photographs(5), "5 usable images of 5"),
        ([np.zeros((32, 32, 3), np.uint8)] * 40, "0 usable images of 40 .40 flat"),
        ([photographs(1)[0]] * 40, "1 usable images of 40 .39 duplicate"),
    ],
)
def test_too_few_usable_images(tmp_path: Path, images: list[np.ndarray], message: str) -> None:
    with pytest.raises(AdaptationError, match=message):
        load_domain(write_images(tmp_path / "real", images), "real")


def test_swapped_shared_and_maskless_domains_are_refused() -> None:
    source, target = domains()
    with pytest.raises(AdaptationError, match="are the two folders swapped"):
        check_pair(target, source, needs_masks=True)
    with pytest.raises(AdaptationError, match="has no masks, and this preset needs them"):
        check_pair(target, Domain("other", scenes(20, True, 8)[0]), needs_masks=True)
    with pytest.raises(AdaptationError, match="40 images are in both"):
        check_pair(source, source, needs_masks=True)
    empty = Domain("sim", source.images, np.zeros_like(source.masks))
    with pytest.raises(AdaptationError, match="masks of 'sim' are empty"):
        check_pair(empty, target, needs_masks=True)
    check_pair(source, target, needs_masks=True)


def test_held_out_images_are_not_trained_on() -> None:
    source, target = domains()
    data = Data.of(source, target, 0)
    train = {image.tobytes() for image in data.source.images}
    assert len(data.source_held) == 4
    assert not train & {image.tobytes() for image in data.source_held.images}


def test_real_digits_get_nearer_to_their_target() -> None:
    """MNIST to MNIST-M: two hundred steps already bring rendered digits nearer to the target's pixels."""
    root = whole("pixelda")
    digits = np.load(root / "mnist_train.npz")
    images = np.pad(digits["x"][:800], ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, axis=-1)
    source = Domain("mnist", images, labels=digits["y"][:800].astype(np.int64))
    target = Domain("mnist-m", np.load(root / "mnist_m_train_unlabelled.npz")["x"][:800])
    from sim2real.adapt.metrics import features, kernel_distance
    from sim2real.adapt.translate import cut_exemplars, translate

    more = [
        "task.kind=classify",
        "weights.content=0",
        "generator.exemplar=true",
        "generator.from_input=false",
        "steps=60",
        "batch_size=16",
    ]
    trainer = Trainer(small("pixelda", *more), source, target)
    for _ in range(60):
        trainer.update()
    adapted = translate(trainer.averages["generator"], images[:200], cut_exemplars(target.images, 64, 0))
    real = features(target.images[:400])
    assert kernel_distance(features(adapted), real) < 0.2 * kernel_distance(features(images[:200]), real)
