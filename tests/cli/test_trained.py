"""What a training achieved is said in words, and a poor policy does not look like a good one."""

import json

import pytest
from conftest import rehash

from sim2real.cli.trained import print_audit, say_success
from sim2real.sim.audit import AuditRow


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("success", "words"),
    [
        (0.28, "The policy has not learned the task; do not run it on a robot. Train longer"),
        (0.7, "The policy fails in 30% of the episodes, and targets are harder."),
        (0.95, "Good in its own simulator, which says nothing of a robot yet. Next: sim2real evaluate"),
    ],
)
def test_success_is_said_with_what_it_means(bundle_copy, capsys, success, words):
    from sim2real.config import load_config

    provenance = {
        "config": load_config("up_osi", ["task.tolerance_m=0.05"]).model_dump(mode="json", by_alias=True),
        "metrics": {"training_simulator": {"success": success, "crashes": 3, "episodes": 256}},
    }
    (bundle_copy / "provenance.json").write_text(json.dumps(provenance))
    rehash(bundle_copy)
    say_success(bundle_copy)
    text = said(capsys)
    assert f"Success in the training simulator: {success:.0%} of 256 episodes" in text
    assert "An episode succeeds within 5 cm of the goal and 10 degrees of its heading for the last 1 of 5 s" in text
    assert words in text and "3 ended in a failure" in text


def test_a_bundle_that_does_not_say_is_said_to(bundle_copy, capsys):
    say_success(bundle_copy)
    assert "does not say how often its policy succeeds" in said(capsys)


def row(term, moves=True, matters=True):
    return AuditRow(term, 0.0, 1.0, 0.001, 0.01, moves, 0.0, of_tolerance=0.03, of_noise=0.2, matters=matters)


def test_the_audit_names_terms_that_are_nearly_dead(capsys, tmp_path):
    print_audit("mine", [row("mass"), row("drag", matters=False)], 0.03, tmp_path / "audit.json")
    text = said(capsys)
    assert "Nearly dead: drag. " in text and "1 of 2 terms do what can be felt." in text
    saved = json.loads((tmp_path / "audit.json").read_text())
    assert saved["tolerance_m"] == 0.03 and [term["matters"] for term in saved["terms"]] == [True, False]


def test_a_dead_term_still_fails_the_command(capsys):
    from typer import Exit

    with pytest.raises(Exit):
        print_audit("mine", [row("mass"), row("ghost", moves=False, matters=False)], 0.03, None)
    text = said(capsys)
    assert "No effect: ghost." in text and "Nearly dead" not in text
