"""What the gate finds without a detector, one fault at a time, and what becomes of the verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from adapt_maker import scenes  # noqa: E402

from sim2real.adapt import checkpoints, finish, gate  # noqa: E402
from sim2real.adapt.config import AdaptConfig, GateConfig  # noqa: E402
from sim2real.adapt.data import Data  # noqa: E402
from sim2real.adapt.domains import Domain  # noqa: E402
from sim2real.adapt.gate import Verdict, judge  # noqa: E402
from sim2real.adapt.invented import invented, with_copies  # noqa: E402
from sim2real.adapt.networks import Classifier, Generator, Segmenter  # noqa: E402
from sim2real.adapt.objects import vanished  # noqa: E402

SIDE = 64
CLASSES = {0: "background", 1: "object", 2: "table"}


def table(count: int = 40) -> Domain:
    """One disc of 12 px on a table with a soft light and a hard edge of another colour at the top."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    images, masks = [], []
    for _ in range(count):
        centre = rng.uniform(20, 44, 2)
        disc = np.hypot(x - centre[0], y - centre[1]) < 6
        ground = rng.uniform(90, 150, 3) + 30 * np.sin(x / 30 + rng.uniform(0, 6))[..., None]
        ground[:10] = rng.uniform(30, 220, 3)
        image = np.where(disc[..., None], np.array([210, 40, 30]), ground)
        images.append(image.clip(0, 255).astype(np.uint8))
        masks.append(np.where(disc, 1, np.where(y < 10, 0, 2)).astype(np.uint8))
    return Domain("sim", np.stack(images), np.stack(masks), classes=CLASSES)


def blind(classes: int = 3) -> Segmenter:
    """A detector that finds nothing."""
    torch.manual_seed(0)
    network = Segmenter(classes, 4).eval()
    network.out.weight.data.zero_()
    network.out.bias.data[:] = torch.tensor([1.0] + [0.0] * (classes - 1))
    return network


def verdict_of(images: NDArray[np.uint8], held: Domain, limits: GateConfig | None = None) -> Verdict:
    return judge(lambda _: images, held, limits or GateConfig(), blind(int(held.masks.max()) + 1), None)[0]


def painted_out(held: Domain, share: float) -> NDArray[np.uint8]:
    result = held.images.copy()
    for row in range(round(share * len(held))):
        hole = cv2.dilate((held.masks[row] == 1).astype(np.uint8), np.ones((5, 5), np.uint8))
        result[row] = cv2.inpaint(held.images[row], hole, 3, cv2.INPAINT_TELEA)
    return result


def recolourings() -> dict[str, object]:
    noise = np.random.default_rng(1).normal(0, 12, (40, SIDE, SIDE, 3))
    mix = np.array([[0.8, 0.3, -0.2], [0.1, 0.7, 0.2], [-0.4, 0.3, 1.1]])
    return {
        "nothing": lambda x: x,
        "mixed": lambda x: (x[..., [2, 0, 1]] @ mix + 10).clip(0, 255).astype(np.uint8),
        "inverted": lambda x: 255 - x,
        "dull": lambda x: (0.4 * x + 100).astype(np.uint8),
        "blurred": lambda x: np.stack([cv2.GaussianBlur(image, (0, 0), 1.0) for image in x]),
        "noisy": lambda x: (x + noise).clip(0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize("look", recolourings())
def test_a_change_of_look_passes_without_a_detector(look: str) -> None:
    held = table()
    verdict = verdict_of(recolourings()[look](held.images), held)  # type: ignore[operator]
    assert verdict.passed, verdict
    assert verdict.figures["invented"] == verdict.figures["object.vanished"] == 0.0
    assert any("object by the detector" in note for note in verdict.not_judged)


@pytest.mark.parametrize(("share", "passes"), [(0.0, True), (0.1, False), (1.0, False)])
def test_a_second_object_is_found_without_a_detector(share: float, passes: bool) -> None:
    held = table()
    doubled, placed = with_copies(held.images, held.masks, 1, held.masks == 1)
    assert placed.all()
    count = round(share * len(held))
    verdict = verdict_of(np.concatenate((doubled[:count], held.images[count:])), held)
    assert verdict.passed == passes
    assert verdict.figures["invented"] == pytest.approx(share, abs=0.1)
    if not passes:
        assert verdict.reasons[0].startswith("invents something away from all objects in")


def test_a_soft_shadow_is_no_thing_and_a_hard_patch_is() -> None:
    held = table()
    y, x = np.mgrid[:SIDE, :SIDE]
    shade = np.where(np.hypot(x - 48, y - 50) < 6, 0.3, 1.0).astype(np.float32)
    away = np.array([not (mask[40:, 36:] == 1).any() for mask in held.masks])
    images, objects = held.images[away], held.masks[away] == 1
    assert away.sum() > 5
    hard = (images * shade[..., None]).astype(np.uint8)
    soft = (images * cv2.GaussianBlur(shade, (0, 0), 5)[..., None]).astype(np.uint8)
    assert invented(images, hard, objects)[0].mean() > 0.8
    assert not invented(images, soft, objects)[0].any()


def test_new_backgrounds_are_not_judged_for_things() -> None:
    held = table()
    blocks = np.random.default_rng(0).integers(20, 230, (40, 5, 5, 3)).astype(np.uint8)
    grounds = blocks.repeat(13, axis=1).repeat(13, axis=2)[:, :SIDE, :SIDE]
    images = np.where(held.masks[..., None] == 1, held.images, grounds)
    verdict = verdict_of(images, held)
    assert "invented" not in verdict.figures
    assert "invented things without the detector: the backgrounds are all new" in verdict.not_judged
    assert any(reason.startswith("of no object could be judged") for reason in verdict.reasons)


@pytest.mark.parametrize(("share", "passes"), [(0.0, True), (0.1, False), (1.0, False)])
def test_an_object_that_is_painted_over_is_missed(share: float, passes: bool) -> None:
    held = table()
    # edges may be lost in these, so that only the outlines can tell
    verdict = verdict_of(painted_out(held, share), held, GateConfig(lost=1.0, drift_px=99, drift_p95_px=99))
    assert verdict.passed == passes
    assert verdict.figures["object.vanished"] == pytest.approx(share, abs=0.02)
    if not passes:
        assert f"makes {share:.1%} of what is seen of object vanish, allowed 3.0%" in verdict.reasons


def test_one_of_two_objects_is_missed() -> None:
    held = table()
    images, placed = with_copies(held.images, held.masks, 1, held.masks == 1)
    masks = np.where((images != held.images).any(axis=-1), 1, held.masks).astype(np.uint8)
    seen, gone = vanished(images, held.images, masks)[1]
    assert placed.all()
    assert seen.mean() > 1.8
    assert gone.mean() > 0.8


def test_lost_edges_in_a_tenth_are_refused() -> None:
    held = table()
    held = replace(held, classes=CLASSES | {1: "{odd name}"})
    verdict = verdict_of(painted_out(held, 0.1), held, GateConfig(removed=1.0))
    assert any(reason.startswith("loses the edges of {odd name} in") for reason in verdict.reasons), verdict


@pytest.mark.parametrize(("moved", "passes"), [(0, True), (1, True), (4, False)])
def test_a_generator_that_moves_objects_in_a_tenth_of_the_images_is_refused(
    moved: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The median of 40 images sees nothing of it; the worst twentieth does."""
    held = table(40)
    drift = np.zeros(40)
    drift[:moved] = 20.0
    monkeypatch.setattr(gate, "edge_drift", lambda *_: (drift, np.ones(40)))
    verdict = verdict_of(held.images, held)
    said = [reason for reason in verdict.reasons if "worst twentieth" in reason]
    assert verdict.figures["object.drift_px"] == 0.0 and bool(said) is not passes


def test_one_image_of_a_few_is_no_share() -> None:
    held = table(20)
    verdict = verdict_of(painted_out(held, 0.05), held)
    assert verdict.figures["object.vanished"] == 0.05
    assert verdict.passed


def test_objects_that_nothing_can_judge_are_a_reason() -> None:
    held = table()
    pale = np.where(held.masks[..., None] == 1, 128, 126).repeat(3, axis=-1).astype(np.uint8)
    verdict = verdict_of(pale, Domain("sim", pale, held.masks, classes=CLASSES))
    assert not verdict.passed
    assert any(reason.startswith("of no object could be judged") for reason in verdict.reasons)
    assert any("nor by its outlines and copies put elsewhere" in note for note in verdict.not_judged)


def test_a_rare_object_is_not_judged_by_a_detector_that_hardly_met_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found well, but in three images: that it vanishes from all of them would not be seen."""
    held = table(20)
    held.masks[3:][held.masks[3:] == 1] = 2
    after = np.where(held.masks == 1, 2, held.masks).astype(np.uint8)
    answers = iter((held.masks, held.masks, after))
    monkeypatch.setattr(gate, "predict", lambda *_: next(answers))
    verdict = verdict_of(painted_out(held, 1.0), held)
    assert not verdict.passed
    assert any("finds it in fewer than" in note and "nor by its" in note for note in verdict.not_judged)


def test_a_class_that_the_detector_does_not_know_is_judged_all_the_same() -> None:
    held = table()
    masks = np.where(held.masks == 1, 3, held.masks).astype(np.uint8)
    unknown = Domain("sim", held.images, masks, classes={**CLASSES, 3: "other"})
    verdict = judge(lambda _: painted_out(held, 1.0), unknown, GateConfig(), blind(3), None)[0]
    assert any("other" in reason and "vanish" in reason for reason in verdict.reasons)
    assert any("other by the detector, which was trained without it" in note for note in verdict.not_judged)


# What a detector tells


def seen(before: NDArray[np.uint8], after: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> str:
    """Reasons where a detector finds the truth, then ``before``, then ``after``, and no other check refuses."""
    held = table()
    answers = iter((held.masks, before, after))
    monkeypatch.setattr(gate, "predict", lambda *_: next(answers))
    return "; ".join(verdict_of(held.images, held).reasons)


def test_what_the_detector_misses_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = table().masks
    after = truth.copy()
    after[:4][after[:4] == 1] = 2
    assert seen(truth, truth, monkeypatch) == ""
    assert seen(truth, after, monkeypatch) == "removes object in 10.0% of the images, allowed 3.0%"


def test_what_the_detector_finds_smaller_has_changed_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = table().masks
    inner = np.stack([cv2.erode((mask == 1).astype(np.uint8), np.ones((5, 5), np.uint8)) for mask in truth])
    after = np.where((truth == 1) & (inner == 0), 2, truth).astype(np.uint8)
    told = seen(truth, after, monkeypatch)
    assert told.startswith("changes the shape of object: IoU 0.3")
    assert "removes" not in told


# The task and the rest


def test_images_of_one_colour_are_refused() -> None:
    images, _ = scenes(20, False, 0)
    held = Domain("sim", images, labels=np.arange(20) % 2)
    verdict, _ = judge(lambda x: np.full_like(x, 90), held, GateConfig(), None, None)
    assert "the generator gives images of one colour" in verdict.reasons
    verdict, _ = judge(lambda x: x, held, GateConfig(), None, None)
    assert "the generator gives images of one colour" not in verdict.reasons


def classified(before: float, after: float, classes: int, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """Verdict on a classifier that is right in these shares of rendered and of adapted images."""
    images, _ = scenes(40, False, 0)
    labels = np.arange(40) % classes
    held = Domain("sim", images, labels=labels)

    def predict(_network: object, _images: object, domain: int) -> NDArray[np.int64]:
        right = np.arange(40) < 40 * (after if domain else before)
        return np.where(right, labels, (labels + 1) % classes)

    monkeypatch.setattr(gate, "predict", predict)
    return judge(lambda x: x, held, GateConfig(), None, Classifier(classes, 4))[0]


def test_a_classifier_that_gets_worse_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert classified(0.95, 0.95, 4, monkeypatch).passed
    verdict = classified(0.95, 0.8, 4, monkeypatch)
    assert verdict.reasons[0].startswith("worsens the task: accuracy 0.800 on adapted images, 0.950 on rendered ones")


@pytest.mark.parametrize(
    ("classes", "before", "says_nothing"), [(4, 0.3, True), (4, 0.6, False), (2, 0.6, True), (2, 0.8, False)]
)
def test_a_classifier_that_guesses_says_nothing(
    classes: int, before: float, says_nothing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = classified(before, before, classes, monkeypatch).not_judged
    assert any(note.startswith("task: the network cannot do it on rendered images") for note in notes) == says_nothing


def test_a_segmenter_that_finds_nothing_says_nothing() -> None:
    held = table()
    verdict, _ = judge(lambda x: x, held, GateConfig(), None, blind())
    assert any(note.startswith("task: the network cannot do it on rendered images") for note in verdict.not_judged)
    assert verdict.figures["task_before"] < 0.3


# What is kept and shown


def test_faults_name_the_images_and_pictures_show_them_first(monkeypatch: pytest.MonkeyPatch) -> None:
    held = table(20)
    images = held.images.copy()
    images[13] = painted_out(held, 1.0)[13]
    verdict = verdict_of(images, held)
    assert verdict.faults.argmax() == 13
    assert (np.delete(verdict.faults, 13) == 0).all()
    assert json.loads(json.dumps(verdict.summary())).keys() >= {"passed", "reasons", "figures"}
    assert "faults" not in verdict.summary()

    drawn = []
    monkeypatch.setattr(finish.sheets, "outlined", lambda x, masks: drawn.append((x, masks)) or x)
    data = Data(held, held, held, held)
    pictures = finish._pictures(data, images, verdict.faults)
    assert set(pictures) == {"grid", "masks", "failures"}
    shown, masks = drawn[-1]
    assert (shown[0][::3, ::3] == images[13]).all()
    assert (masks[0][::3, ::3] == (held.masks[13] == 1)).all(), "outlines are the simulator's, without surfaces"


def test_the_kept_checkpoint_is_not_the_last_but_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = table(20)
    data = Data(held, held, held, held)
    # nearness and verdict at each check: the second is the nearest of those that pass
    nearness, passes = iter((3.0, 2.0, 1.0, 4.0)), iter((True, True, False, True))
    monkeypatch.setattr(checkpoints, "kernel_distance", lambda *_: next(nearness))
    monkeypatch.setattr(checkpoints, "judge", lambda *_: (Verdict(next(passes), ()), held.images))
    keeper = checkpoints.Keeper(data, None, None, tmp_path)
    try:
        for step in range(4):
            averages = torch.nn.ModuleDict({"generator": Generator(AdaptConfig(name="x").generator)})
            averages["generator"].out.bias.data[:] = float(step)
            trainer = SimpleNamespace(step=step, averages=averages, config=SimpleNamespace(gate=GateConfig()))
            keeper.look(trainer, {})  # type: ignore[arg-type]
    finally:
        keeper.close()
    assert torch.load(tmp_path / "best.pt")["generator.out.bias"].tolist() == [1.0, 1.0, 1.0]
    assert [row["passed"] for row in checkpoints.read_checks(tmp_path)] == [True, True, False, True]
