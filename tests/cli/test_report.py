"""The demo's report: what it says in words, and that it can be mailed and read anywhere."""

import numpy as np
import pytest
from browser import check_page

from sim2real.cli.demo import DRONE, verdict
from sim2real.evaluate.report import Report, write_report


def cell(success, within=None):
    low, high = max(success - 0.1, 0.0), min(success + 0.1, 1.0)
    return {"success": success, "ci95": [low, high], "n": 20, "final_error_m": 0.01, "crashes": 1, "within": within}


def results():
    conditions = ("fresh", "low_battery", "payload", "delay")
    drones = ("cf2x_L250", "cf2x_P250")
    table = {
        p: {d: {c: cell(s) for c in conditions} for d in drones} for p, s in (("up_osi", 0.9), ("controller", 0.5))
    }
    table["up_osi"]["cf2x_P250"]["delay"] = cell(0.7)
    long = {"up_osi": {d: {"fresh": cell(1.0, 0.96)} for d in drones}}
    return {"in_process": table, "minute": long, "ten_minutes": long, "ros2": table}


def test_the_verdict_names_the_best_its_worst_and_its_rivals():
    sentences = verdict(DRONE, results())
    assert sentences[0] == "up_osi succeeds in 87.5% of its episodes, in its worst cell in 70%; controller 50%."
    assert sentences[1] == "In episodes of 60 s up_osi is within tolerance for 96.0% of the time."
    assert sentences[2].startswith("In episodes of 600 s")


@pytest.fixture
def page(tmp_path):
    learning = {"up_osi": [{"samples": 1e5 * i, "success": 0.1 * i, "reward": 0.1 * i} for i in range(8)]}
    report = Report(
        title="Crazyflie hover",
        verdict=verdict(DRONE, results()),
        criterion="within 3 cm of the goal",
        results=results(),
        learning=learning,
        trajectories={"up_osi": np.geomspace(1.0, 0.01, 250)[:, None] * np.ones((250, 20))},
        facts={"commit": "0" * 40, "versions": "torch 2.13.0, " * 12},
    )
    return write_report(report, tmp_path / "report.html")


def test_it_shows_every_table_and_how_long_the_goal_was_held(page):
    text = page.read_text()
    for title in ("in process", "a minute at the goal", "ten minutes at the goal", "over ROS 2"):
        assert title in text
    assert "within 96.0 %" in text and "up_osi succeeds in 87.5%" in text


@pytest.mark.slow
def test_it_reads_in_a_browser_without_a_network(page, tmp_path):
    check_page(page, tmp_path)
