"""The audit finds every term alive, and a dead one."""

import numpy as np
import pytest

from sim2real.config import load_config
from sim2real.learn.audit import audit_experiment, auditor_of, expert_excitation
from sim2real.learn.experiment import load_experiment
from sim2real.robots import load_robot
from sim2real.robots.physics import PhysicsParameter
from sim2real.robots.terms import RandomizationTerm
from sim2real.runtime.flight_signals import FlightSignals
from sim2real.sim.audit import Auditor, AuditRow, audit, cut, ends


def auditor_of_drone(robot):
    return Auditor(robot, FlightSignals(robot.spec), "position_error")


@pytest.fixture(scope="module")
def rows():
    robot = load_robot("crazyflie")
    return audit(robot.randomization, auditor_of_drone(robot))


def test_every_term_moves_the_robot(rows):
    assert len(rows) == len(load_robot("crazyflie").randomization)
    assert [row.term for row in rows if not row.moves] == []


def test_ranking_is_sorted_and_mass_is_strong(rows):
    effects = [row.effect for row in rows]
    assert effects == sorted(effects, reverse=True)
    assert "mass" in [row.term for row in rows[:5]]


@pytest.mark.parametrize("kind", ["episode", "step"])
def test_a_term_that_nothing_reads_is_found(kind):
    model = load_robot("crazyflie")
    model.parameters = {**model.parameters, "ghost": PhysicsParameter(unit="1", nominal=1.0, low=0.0, high=2.0)}
    ghost = RandomizationTerm(
        operation="set", distribution="uniform", range=(0.5, 1.5), kind=kind, reason="nobody reads it"
    )
    (row,) = audit({"ghost": ghost}, auditor_of_drone(model))
    assert not row.moves and row.effect == 0.0


def test_a_term_too_small_to_be_felt_is_nearly_dead():
    """Any change of mass passes where only 1e-9 is asked for; a thousandth of a milligram must not pass."""
    model, drone = load_robot("crazyflie"), load_robot("crazyflie").randomization["mass"]
    speck = drone.model_copy(update={"operation": "scale", "range": (1.0 - 1e-6, 1.0 + 1e-6)})
    rows = {row.term: row for row in audit({"mass": speck}, auditor_of_drone(model))}
    assert rows["mass"].moves and rows["mass"].effect > 1e-9 and not rows["mass"].matters
    assert rows["mass"].of_tolerance < 0.05 and rows["mass"].of_noise < 0.1
    noisy = {name: model.randomization[name] for name in ("position_noise", "velocity_noise")}
    felt = {row.term: row for row in audit({"mass": drone, **noisy}, auditor_of_drone(model))}
    assert felt["mass"].matters and felt["mass"].of_tolerance == pytest.approx(felt["mass"].distance_m / 0.01)


def test_noise_is_told_from_motion():
    """White noise of 3 mm, on a position that other random numbers carry off smoothly."""
    rng, time = np.random.default_rng(0), np.arange(75)[:, None, None] / 50
    reference = np.sin(time) + 0.003 * rng.standard_normal((75, 8, 3))
    other = np.sin(time) + 0.3 * time**2 + 0.003 * rng.standard_normal((75, 8, 3))
    auditor = auditor_of_drone(load_robot("crazyflie"))
    auditor.rollout = lambda values, terms, seed: {"pos": other}
    assert auditor.noise({}, {"pos": reference})["pos"] == pytest.approx(0.003, rel=0.1)


def test_ends_and_draws_stay_within_the_bounds():
    parameter = PhysicsParameter(unit="1", nominal=2.0, low=1.0, high=4.0)
    wide = RandomizationTerm(operation="scale", distribution="uniform", range=(0.0, 4.0), reason="half of it is beyond")
    assert ends(wide, 2.0, parameter) == (1.0, 4.0, 4.0)
    assert cut(wide, 2.0, parameter) == pytest.approx(1.0 - 1.5 / 4.0, abs=0.02)
    narrow = RandomizationTerm(operation="offset", distribution="uniform", range=(-1.0, 1.0), reason="all within")
    assert ends(narrow, 2.0, parameter) == (1.0, 2.0, 3.0) and cut(narrow, 2.0, parameter) == 0.0


def test_only_pengs_joint_damping_meets_bounds():
    """Of a servo's speed-dependent torque the range is wider than servos are; all else is drawn as it is written."""
    experiment = load_experiment(load_config("so101_push_peng"))
    for name, term in experiment.terms.items():
        parameter = experiment.parameters[term.parameter or name]
        share = cut(term, parameter.nominal, parameter)
        assert share < (0.5 if name.endswith(".no_load_speed") else 1e-9), name


@pytest.mark.slow
def test_an_object_shows_where_it_is_touched():
    experiment = load_experiment(load_config("so101_push"))
    terms = {name: term for name, term in experiment.terms.items() if name.startswith(("object_", "table_"))}
    assert len(terms) == 7 and terms == experiment.task.scene.randomization
    touching = audit(terms, auditor_of(experiment, expert_excitation(experiment, 4)))
    assert [row.term for row in touching if not row.moves] == []


def test_an_experiment_is_audited_for_real():
    experiment = load_experiment(load_config("so101_push", ["randomize=[object_friction, action_delay]"]))
    rows = {row.term: row for row in audit_experiment(experiment)}
    assert set(rows) == {"object_friction", "action_delay"} and all(row.moves for row in rows.values())


def test_what_is_silent_is_audited_again_with_what_the_expert_does(monkeypatch):
    """Friction of an object that nothing touches is silent; the experiment's audit tries it again at work."""
    experiment = load_experiment(load_config("so101_push", ["randomize=[object_friction]"]))
    seen = []

    def silent_at_first(terms, does):
        seen.append(does)
        moves = does is not None
        return [AuditRow(name, 0.0, 1.0, 0.0, float(moves), moves, 0.0, 0.0, 0.0, moves) for name in terms]

    monkeypatch.setattr("sim2real.learn.audit.auditor_of", lambda experiment, does=None: does)
    monkeypatch.setattr("sim2real.learn.audit.audit", silent_at_first)
    rows = audit_experiment(experiment)
    assert [row.moves for row in rows] == [True]
    assert seen[0] is None and len(seen[1].commands) == experiment.task.episode_s * 50
    assert expert_excitation(load_experiment(load_config("nominal"))) is None


@pytest.mark.slow
def test_pengs_ranges_all_move_the_arm():
    experiment = load_experiment(load_config("so101_push_peng"))
    rows = audit(experiment.terms, auditor_of(experiment, expert_excitation(experiment, 2)))
    assert len(rows) == 26 and [row.term for row in rows if not row.moves] == []
