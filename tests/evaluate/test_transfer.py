"""The transfer benchmark: its rows, its lines, its table by hand, and one small run from end to end."""

import json

import pytest

from sim2real.cli.main import main
from sim2real.config import load_config
from sim2real.evaluate import transfer
from sim2real.evaluate.bench import Row
from sim2real.evaluate.rows import read_lines
from sim2real.evaluate.transfer import TASKS, Plan, record, switched_off
from sim2real.evaluate.transfer_table import fraction_of_gap, markdown, remark, summarise
from sim2real.learn.experiment import load_experiment
from sim2real.methods import load_method

KEYS = {
    "method", "off", "settings", "task", "target", "variant", "condition", "seed", "metric", "value", "ci95", "n",
    "target_episodes", "env_steps", "cpu_s", "wall_s", "lines", "deployable", "cheats", "made",
}  # fmt: skip


def line(method, value, condition="fresh", seed=0, off=False, cheats=False, n=100, wall_s=120.0):
    return {
        "method": method, "off": off, "settings": [], "task": "hover", "target": "t", "variant": "v",
        "condition": condition, "seed": seed, "metric": "success", "value": value, "ci95": [0, 1], "n": n,
        "target_episodes": 0, "env_steps": 1, "cpu_s": 1.0, "wall_s": wall_s, "lines": 40, "deployable": not cheats,
        "cheats": cheats, "made": {},
    }  # fmt: skip


def test_a_summary_by_hand():
    lines = [line("a", 1.0, seed=0), line("a", 0.8, "payload"), line("a", 0.6, seed=1), line("a", 0.4, "payload", 1)]
    (row,) = summarise(lines)
    assert row.mean == pytest.approx(0.7) and row.worst == pytest.approx(0.6) and row.seeds == 2
    # The seeds' means are 0.9 and 0.5: resampled, their mean lies between.
    assert row.interval == pytest.approx((0.5, 0.9))
    assert row.cells["payload"][0] == pytest.approx(0.6)
    assert row.cells["payload"][1] == pytest.approx((0.531, 0.665), abs=0.002)  # Wilson, 120 of 200
    assert row.minutes == 2.0
    (alone,) = summarise(lines[:1])
    assert alone.interval == pytest.approx((0.963, 1.0), abs=0.001), "one seed: Wilson, 100 of 100"


def test_what_is_said_of_a_row():
    rows = summarise([
        line("oracle", 1.0, cheats=True), line("none", 0.2), line("a", 0.8), line("a", 0.79, off=True), line("b", 0.8),
        line("b", 0.3, off=True),
    ])  # fmt: skip
    named = {row.name: row for row in rows}
    assert rows[-1].name == "oracle", "what reads the truth comes last"
    assert remark(rows, named["a"]) == "no effect shown" and remark(rows, named["b"]) == ""
    assert remark(rows, named["oracle"]) == "reads the target's truth"
    assert fraction_of_gap(rows, named["b"]) == pytest.approx(0.75)
    text = markdown(rows, "Title")
    assert "| of the gap |" in text and "| 75% |" in text and "no effect shown" in text
    small = summarise([line("oracle", 0.39, cheats=True), line("none", 0.2), line("b", 0.3)])
    assert fraction_of_gap(small, small[1]) is None
    assert "of the gap" not in markdown(small, "Title").partition("\n\nNo fraction")[0]


def test_lines_of_the_same_cell_take_its_place(tmp_path):
    file = tmp_path / "lines.jsonl"
    record([line("a", 0.1), line("b", 0.2)], file)
    record([line("a", 0.3), line("a", 0.4, seed=1)], file)
    assert [(x["method"], x["seed"], x["value"]) for x in read_lines(file)] == [
        ("a", 0, 0.3),
        ("b", 0, 0.2),
        ("a", 1, 0.4),
    ]


@pytest.mark.parametrize("task", TASKS)
def test_every_row_suits_its_method_and_so_does_its_off_row(task):
    names = []
    for row in Plan(tasks=(task,), off=True).rows(task):
        names.append(row.name)
        if not row.runner:
            config = load_config(row.config, row.settings)
            method = load_method(config.method)
            method.check(load_experiment(config))
            if row.name.endswith("_off"):
                assert method.settings == method.off().settings, "the mechanism is off"
    oracle = ["oracle"] if task == "hover" else []
    assert names == [
        "none", "randomized", "rfi", "rfi_off", "controller", "history", "lstm", "up_osi", "up_osi_off", "epopt",
        "epopt_off", "rma", "rma_off", "adr", "adr_off", *oracle,
    ]  # fmt: skip


def test_which_rows_take_over_a_training():
    rows = {row.name: row for row in Plan(off=True, quick=True).rows("hover")}
    assert rows["rma_off"].like == "rma" and rows["up_osi_off"].like == "up_osi"
    assert rows["epopt_off"].like == "" and "ppo.iterations=105" in rows["epopt_off"].settings
    assert switched_off(Row("none", "nominal")) is None
    assert [row.name for row in Plan(methods=("random_forces", "nominal")).rows("hover")] == ["none", "rfi"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "none", "epop"], "no methods ['epop']; it has none, randomized, rfi"),
        (["--methods", "none", "--tasks", "hove"], "there is no task 'hove' in this benchmark; there are hover"),
    ],
)
def test_what_is_misspelt_is_said_at_once(arguments, words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "transfer", *arguments, "--run", str(tmp_path), "--results", str(tmp_path / "r.jsonl")])
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_small_run_from_end_to_end(tmp_path, monkeypatch, capsys):
    small = ("sim.robots=8", "sim.workers=1", "ppo.iterations=2", "ppo.steps=16", "ppo.mini_batches=2")
    method = "method={name: rma, latent: 2, rounds: 1, robots: 8, batches_per_round: 5}"
    oracle = Row("oracle", "nominal", (*small, "sim.robots=16"), runner="oracle")
    rows = (Row("none", "nominal", small), Row("rma", "rma", (*small, method)), oracle)
    monkeypatch.setitem(transfer.TASKS, "hover", rows)
    results, run = tmp_path / "lines.jsonl", tmp_path / "runs"
    arguments = [
        "benchmark",
        "transfer",
        "--methods",
        "none",
        "rma",
        "oracle",
        "--tasks",
        "hover",
        "--seeds",
        "1",
        "--off",
    ]
    arguments += ["--episodes", "2", "--run", str(run), "--results", str(results)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (0, None), capsys.readouterr()
    lines = read_lines(results)
    assert len(lines) == 4 * 16 and all(set(x) == KEYS for x in lines)
    assert {(x["method"], x["off"]) for x in lines} == {
        ("none", False),
        ("rma", False),
        ("rma", True),
        ("oracle", False),
    }
    on, off = run / "hover" / "rma_0", run / "hover" / "rma_off_0"
    assert (on / "checkpoint.pt").read_bytes() == (off / "checkpoint.pt").read_bytes(), "nothing is trained twice"
    assert (on / "estimator.pt").read_bytes() == (off / "estimator.pt").read_bytes()
    rma = next(x for x in lines if x["method"] == "rma")
    assert (
        rma["env_steps"] == 2 * 16 * 8 and 50 < rma["lines"] <= 150 and rma["deployable"] and rma["wall_s"] is not None
    )
    truth = next(x for x in lines if x["cheats"])
    # 2 iterations of 16 steps with 16 drones: 512 steps, two episodes of 250.
    assert truth["method"] == "oracle" and truth["target_episodes"] == 2 and not truth["deployable"]
    assert "| rma off | 1 |" in (run / "transfer.md").read_text()
    before = (run / "hover" / "results.jsonl").read_text()
    with pytest.raises(SystemExit):
        main(arguments)
    assert (run / "hover" / "results.jsonl").read_text() == before, "what is finished is not run again"
    assert json.loads((run / "hover" / "rma_off_0" / "bundle" / "provenance.json").read_text())["config"]["method"][
        "nominal_latent"
    ]
