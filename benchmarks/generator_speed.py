"""How fast generators run and train at 128 px, beside the public CUT code at equal size on the same machine.

    python benchmarks/generator_speed.py --cut CHECKOUT     # github.com/taesungp/contrastive-unpaired-translation

Running: onnxruntime, one thread, one image. Training: steps of the whole trainer, both domains' images in memory, on
all threads; an image a second is one rendered image with its camera image.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

from sim2real.adapt.config import AdaptConfig, load_preset
from sim2real.adapt.domains import Domain
from sim2real.adapt.networks import Generator, parameter_count
from sim2real.adapt.train import Trainer
from sim2real.adapt.translate import export_generator
from sim2real.files import write_text
from sim2real.provenance import commit
from sim2real.runtime.policy import onnx_session

RESULTS = Path(__file__).parent / "results" / "generator_speed.json"
SIZE, BATCH = 128, 8


def domains() -> tuple[Domain, Domain]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (64, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((64, SIZE, SIZE), np.uint8)
    masks[:, 40:80, 50:90] = 1
    return Domain("sim", images, masks, classes={0: "background", 1: "object"}), Domain("real", images[::-1].copy())


def run_ms(config: AdaptConfig) -> dict[str, float]:
    network = Generator(config.generator)
    session = onnx_session(export_generator(network, (SIZE, SIZE)))
    feed = {"image": np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)}
    times, cpu = [], []
    for _ in range(200):
        start, start_cpu = time.perf_counter(), time.process_time()
        session.run(None, feed)
        times.append(1000 * (time.perf_counter() - start))
        cpu.append(1000 * (time.process_time() - start_cpu))
    return {
        "parameters": parameter_count(network),
        "median_ms": float(np.median(times[20:])),
        "p95_ms": float(np.percentile(times[20:], 95)),
        "median_cpu_ms": float(np.median(cpu[20:])),
    }


def training_rate(config: AdaptConfig, seconds: float) -> dict[str, float]:
    trainer = Trainer(config, *domains())
    for _ in range(3):
        trainer.update()
    return _timed(trainer.update, config.batch_size, seconds)


def _timed(step: Callable[[], object], batch: int, seconds: float) -> dict[str, float]:
    """Images a second of the clock, and of processor time: the latter also holds where other work runs beside."""
    start, start_cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    images = count * batch
    return {
        "images_per_s": images / (time.perf_counter() - start),
        "images_per_cpu_s": images / (time.process_time() - start_cpu),
    }


def public_cut_rate(checkout: Path, width: int, discriminator: int, seconds: float) -> dict[str, float]:
    """The public code's own model class and step, with six blocks and its own defaults otherwise."""
    sys.path.insert(0, str(checkout))
    sys.modules.setdefault("torchvision", ModuleType("torchvision"))  # imported for saving pictures; no step needs it
    from models.cut_model import CUTModel  # type: ignore[import-not-found]

    options = SimpleNamespace(
        gpu_ids=[], isTrain=True, checkpoints_dir="/tmp", name="speed", preprocess="none", direction="AtoB",
        input_nc=3, output_nc=3, ngf=width, ndf=discriminator, netG="resnet_6blocks", netD="basic", n_layers_D=3,
        normG="instance", normD="instance", no_dropout=True, init_type="xavier", init_gain=0.02, no_antialias=False,
        no_antialias_up=False, netF="mlp_sample", netF_nc=256, nce_layers="0,4,8,12,14", nce_T=0.07, num_patches=256,
        nce_idt=True, lambda_GAN=1.0, lambda_NCE=1.0, nce_includes_all_negatives_from_minibatch=False,
        flip_equivariance=False, gan_mode="lsgan", lr=2e-4, beta1=0.5, beta2=0.999, batch_size=BATCH,
    )  # fmt: skip
    model = CUTModel(options)
    batch = {name: torch.rand(BATCH, 3, SIZE, SIZE) * 2 - 1 for name in ("A", "B")} | {"A_paths": [], "B_paths": []}
    model.data_dependent_initialize(batch)
    model.set_input(batch)
    model.optimize_parameters()

    def step() -> None:
        model.set_input(batch)
        model.optimize_parameters()

    return {"parameters": parameter_count(model.netG), **_timed(step, BATCH, seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", type=Path, help="checkout of the public CUT code")
    parser.add_argument("--seconds", type=float, default=15.0, help="of every training measurement")
    arguments = parser.parse_args()
    results: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, torch with {torch.get_num_threads()} threads",
        "load_at_start": os.getloadavg()[0],
    }
    small = [f"image_size={SIZE}", f"batch_size={BATCH}"]
    for preset in ("graspgan", "cut", "cyclegan"):
        results[f"run {preset}"] = run_ms(load_preset(preset, small))
        print(f"run {preset}", results[f"run {preset}"], flush=True)
    for name, preset, more in (
        (
            "small U-Net, adversarial and content",
            "graspgan",
            ["weights.task=0", "weights.perception=0", "task.kind=none"],
        ),
        ("graspgan, task network besides", "graspgan", ["weights.perception=0"]),
        ("cut, residual, 6 blocks", "cut", ["task.kind=none", "generator.kind=residual", "generator.blocks=6"]),
    ):
        for bf16 in (True, False):
            config = load_preset(preset, [*small, *more, f"bf16={bf16}"])
            key = f"train {name}, {'bf16' if bf16 else 'f32'}"
            results[key] = training_rate(config, arguments.seconds)
            print(key, results[key], flush=True)
    if arguments.cut:
        results["train public CUT, residual, 6 blocks, f32"] = public_cut_rate(arguments.cut, 16, 32, arguments.seconds)
        print("public CUT", results["train public CUT, residual, 6 blocks, f32"], flush=True)
    write_text(RESULTS, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
