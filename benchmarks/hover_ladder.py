"""The ladder of Peng et al. 2018 on hovering with a Crazyflie: what each way of bearing unknown physics is worth.

    python benchmarks/hover_ladder.py RUNS [--episodes 200] [--seeds 0 1 2] [--only NAME …]

Every row is trained in RUNS/NAME_SEED and tried on four airframes that others identified, under four conditions each.
The controller is a PID, tuned by benchmarks/tune_hover_controller.py in the simulator that policies are trained in.
"""

from pathlib import Path

from sim2real.evaluate.bench import Row, main

ONE_FRAME = "task={name: hover}"
ROWS = [
    Row("controller", "randomized", runner="expert"),
    Row("nominal", "nominal"),
    Row("feed_forward", "randomized", (ONE_FRAME,)),
    Row("history", "randomized"),
    Row("lstm", "randomized", (ONE_FRAME, "ppo.lstm=128")),
    Row("up_osi", "up_osi"),
]
RESULTS = Path(__file__).parent / "results" / "hover_ladder.jsonl"

if __name__ == "__main__":
    main(ROWS, __doc__ or "", RESULTS, none="nominal")
