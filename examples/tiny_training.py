"""A training of two iterations, exported as a bundle and verified; it learns nothing."""

import tempfile
from pathlib import Path

from sim2real.config import load_config
from sim2real.methods.train import train
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify

if __name__ == "__main__":  # rollout workers import this file
    settings = ["ppo.iterations=2", "sim.robots=8", "ppo.steps=8", "ppo.hidden=[8]", "ppo.critic_hidden=[8]"]
    with tempfile.TemporaryDirectory() as folder:
        path = train(load_config("nominal", settings), Path(folder) / "run", lambda *event: print(*event[:3]))
        bundle = PolicyBundle.load(path)
        for stage in verify(bundle).stages:
            print(f"{stage.name}: differs by {stage.max_difference:.0e}, {stage.tolerance:.0e} is allowed")
        print("inputs", bundle.spec.inputs(), "outputs", bundle.spec.outputs())
