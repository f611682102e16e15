"""The door of all seams: names from a table, and modules of one's own."""

import math
import sys

import pytest

from sim2real.errors import ConfigError
from sim2real.registry import resolve

TABLE = {"tau": "math:tau", "root": "math:sqrt", "broken": "math:no_such"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with modules of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_name_of_the_table_and_a_module_of_ones_own(folder):
    assert resolve("tau", TABLE, "constant") == math.tau
    assert resolve("math:e", TABLE, "constant") == math.e
    (folder / "my_tasks_of_test.py").write_text("class Balance:\n    legs = 2\n")
    assert resolve("my_tasks_of_test:Balance", TABLE, "task").legs == 2


@pytest.mark.parametrize("name", ["roott", "math", "math:", ":tau", "", "math.tau"])
def test_what_is_neither_is_refused(name):
    with pytest.raises(ConfigError, match=f"unknown constant '{name}'; .*known: broken, root, tau, or module:Class"):
        resolve(name, TABLE, "constant")


def test_a_misspelt_name_is_suggested():
    with pytest.raises(ConfigError, match="did you mean 'root'"):
        resolve("roott", TABLE, "constant")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_of_test:X", "task 'no_such_module_of_test:X': there is no module 'no_such_module_of_test'"),
        ("json.no_such:X", "there is no module 'json.no_such'; install it"),
        ("math:no_such", "task 'math:no_such': module 'math' has no 'no_such'"),
        ("broken", "task 'broken': module 'math' has no 'no_such'"),
    ],
)
def test_a_missing_module_or_class_is_one_error(name, words):
    with pytest.raises(ConfigError, match=words) as caught:
        resolve(name, TABLE, "task")
    assert "\n" not in str(caught.value)


def test_faults_inside_a_module_keep_their_own_traceback(folder):
    """They are not mistaken for a module or class that is not there."""
    (folder / "needs_more_of_test.py").write_text("import no_such_library_of_test\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library_of_test"):
        resolve("needs_more_of_test:X", TABLE, "task")
    (folder / "stumbles_of_test.py").write_text("import math\nmath.no_such\nclass X: pass\n")
    with pytest.raises(AttributeError, match="no_such"):
        resolve("stumbles_of_test:X", TABLE, "task")
