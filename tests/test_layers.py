"""The import arrows: which layer may import which, and what never reaches the robot."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import sim2real

ROOT = Path(__file__).parent.parent
OWN = ("sim2real", "robot_drivers", "calibration")

BASE = {"__init__", "config", "errors", "files", "interrupts", "provenance", "registry", "types"}

# Package: the packages it may import besides itself. "evaluate" and "cli" stand on top and may import everything.
ARROWS = {
    "base": set(),
    "runtime": {"base"},
    "drivers": set(),
    "images": {"base", "runtime", "recordings"},
    "recordings": {"base", "runtime"},
    "robots": {"base", "runtime"},
    "sim": {"base", "runtime", "robots"},
    "tasks": {"base", "runtime", "robots", "sim"},
    "targets": {"base", "runtime", "drivers", "robots", "sim", "tasks"},
    "learn": {"base", "runtime", "robots", "sim", "tasks"},
    "methods": {"base", "runtime", "robots", "sim", "tasks", "targets", "learn"},
    "identify": {"base", "runtime", "robots", "sim", "recordings"},
    "calibration": {"base", "runtime", "drivers", "images", "recordings"},
    "adapt": {"base", "runtime", "images", "learn"},
    "perceive": {"base", "runtime", "robots", "sim", "images", "learn"},
    "deploy": {"base", "runtime", "drivers"},
}
TOP = {"evaluate", "cli"}
MOST_LINES = 350
LEARNING = {"torch", "tensordict", "rsl_rl", "gymnasium", "stable_baselines3"}
PHYSICS = {"pybullet", "pybullet_data", "mujoco"}
ONLY_CORE = {"numpy", "yaml", "pydantic", "onnxruntime"}  # what may be imported at the top of the lowest layers


def source_files() -> list[Path]:
    files = (path for package in OWN for path in sorted((ROOT / package).rglob("*.py")))
    return [path for path in files if "package_template" not in path.parts]


def layer_of(path: Path) -> str:
    """The package a source file belongs to."""
    package, *folders, name = path.relative_to(ROOT).with_suffix("").parts
    if package != "sim2real":
        return package.removeprefix("robot_")
    if not folders:
        assert name in BASE | {"__main__"}, f"sim2real/{name}.py belongs to no package; put it into one"
        return "cli" if name == "__main__" else "base"
    assert folders[0] in TOP | set(ARROWS), f"{path} belongs to no layer; name it in {__file__}"
    return folders[0]


def module_file(module: str) -> Path | None:
    """The source file of one of our modules."""
    path = ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def imports(path: Path, everywhere: bool = True) -> Iterator[tuple[str, int]]:
    """Modules that a file imports when it runs, with the line; those for type checkers only are left out.

    Args:
        path: The file.
        everywhere: Also inside functions; otherwise only what importing the file imports.
    """
    package = path.relative_to(ROOT).parent.parts
    yield from _imports(ast.parse(path.read_text()).body, package, everywhere)


def _imports(nodes: list[ast.stmt], package: tuple[str, ...], everywhere: bool) -> Iterator[tuple[str, int]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield base, node.lineno
            submodules = (f"{base}.{alias.name}" for alias in node.names)
            yield from ((name, node.lineno) for name in submodules if module_file(name))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.orelse, package, everywhere)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    yield from _imports([child], package, everywhere)
                elif isinstance(child, ast.ExceptHandler | ast.match_case):
                    yield from _imports(child.body, package, everywhere)


def top(module: str) -> str:
    return module.partition(".")[0]


def test_imports_follow_the_arrows() -> None:
    wrong = []
    for path in source_files():
        layer = layer_of(path)
        if layer in TOP:
            continue
        for module, line in imports(path):
            file = module_file(module) if top(module) in OWN else None
            if file is None or file == ROOT / "sim2real" / "__init__.py":
                continue
            target = layer_of(file)
            if target != layer and target not in ARROWS[layer]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: '{layer}' imports {module} of '{target}'")
    assert not wrong, "\n".join(wrong)


def test_packages_import_each_other_one_way_only() -> None:
    """The arrows above are a partial order: no package reaches itself through others."""
    for start in list(ARROWS):
        seen, waiting = set[str](), set(ARROWS[start])
        while waiting:
            package = waiting.pop()
            assert package != start, f"'{start}' reaches itself"
            waiting |= ARROWS[package] - seen
            seen.add(package)


def test_only_one_file_knows_rsl_rl() -> None:
    knows = {
        path.relative_to(ROOT).as_posix()
        for path in source_files()
        for module, _ in imports(path)
        if top(module) in {"rsl_rl", "tensordict"}
    }
    assert knows == {"sim2real/learn/rsl_rl.py"}


def test_modules_stay_short() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in source_files()
        if (lines := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert not long, f"split by reason to exist: {long}"


def test_no_type_tests_on_robots_or_tasks() -> None:
    """What people bring is one file and never a type test elsewhere."""
    shipped = "crazyflie|so101|fr3|franka"
    pattern = re.compile(
        r"\bis_arm\b|isinstance\([^)]*\b(Arm|Multirotor|Hover|Push|Reach)\b"
        rf"|[!=]= ?['\"]({shipped}|hover|push|reach|nominal|randomized|up_osi)['\"]"
    )
    own = {"robots", "targets", "drivers"}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in source_files()
        if layer_of(path) not in own
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_docstrings_begin_with_what_a_thing_is() -> None:
    fragment = re.compile(r"(Of|What|Where|Whether|How) ")
    found = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {first}"
        for path in source_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if (first := (ast.get_docstring(node) or "").partition("\n")[0]) and fragment.match(first)
    ]
    assert not found, f"{len(found)}:\n" + "\n".join(found)


def test_own_modules_that_are_imported_exist() -> None:
    missing = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in source_files()
        for module, line in imports(path)
        if top(module) in OWN and module_file(module) is None
    ]
    assert not missing, "\n".join(missing)


def test_only_the_world_and_what_draws_it_import_pybullet() -> None:
    callers = {
        path.relative_to(ROOT).as_posix()
        for path in source_files()
        for module, _ in imports(path)
        if top(module) in {"pybullet", "pybullet_data"}
    }
    assert callers == {"sim2real/sim/world.py", "sim2real/sim/tables.py", "sim2real/sim/render/drawing.py"}


@pytest.mark.parametrize(
    ("layers", "banned"),
    [
        ({"base", "runtime", "drivers", "robots", "sim", "tasks"}, LEARNING),
        ({"runtime", "deploy"}, LEARNING | PHYSICS | {"scipy", "matplotlib"}),
        ({"base", "runtime", "robots", "tasks"}, PHYSICS | {"rclpy"}),
    ],
)
def test_heavy_libraries_stay_where_they_belong(layers: set[str], banned: set[str]) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in source_files()
        if layer_of(path) in layers
        for module, line in imports(path)
        if top(module) in banned
    ]
    assert not wrong, "\n".join(wrong)


def test_opencv_is_in_the_perception_node_only() -> None:
    users = {
        path.name
        for path in source_files()
        if layer_of(path) == "deploy"
        for module, _ in imports(path)
        if top(module) == "cv2"
    }
    assert users <= {"perception_node.py"}


def test_lowest_layers_need_only_the_core_libraries() -> None:
    """Also the rule that a vendor's SDK is imported in connect(), never at the top of a driver."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in source_files()
        if layer_of(path) in {"base", "runtime", "drivers"}
        for module, line in imports(path, everywhere=layer_of(path) != "drivers")
        if top(module) not in {*ONLY_CORE, *OWN, *sys.stdlib_module_names}
    ]
    assert not wrong, "\n".join(wrong)


# Runs in a fresh interpreter: refuses the training libraries, imports what is named, prints what was loaded.
REFUSE = """
import importlib, importlib.abc, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(sys.argv[1].split(",")):
            raise ImportError(f"{name} is not installed on the robot")
        return None

sys.meta_path.insert(0, Refuse())
for module in sys.argv[2:]:
    importlib.import_module(module)
print(json.dumps(sorted(name for name in sys.modules if name.startswith("sim2real."))))
"""


def import_as_on_the_robot(*modules: str) -> list[str]:
    """Import modules where training libraries are not installed; our modules that this loaded."""
    refused = ",".join(sorted(LEARNING | PHYSICS))
    result = subprocess.run(
        [sys.executable, "-c", REFUSE, refused, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    loaded: list[str] = json.loads(result.stdout)
    return loaded


def assert_no_training_code(loaded: list[str]) -> None:
    layers = {name.split(".")[1] for name in loaded}
    assert not layers & {"sim", "tasks", "learn", "identify", "adapt", "perceive", "evaluate"}, loaded


def test_policy_imports_without_training_libraries() -> None:
    loaded = import_as_on_the_robot("sim2real.runtime.policy", "sim2real.runtime.bundle")
    assert {"sim2real.runtime.policy", "sim2real.runtime.bundle"} <= set(loaded)
    assert_no_training_code(loaded)


@pytest.mark.ros
def test_policy_node_imports_without_training_libraries() -> None:
    pytest.importorskip("rclpy", reason="the node needs ROS 2; see `sim2real doctor`")
    loaded = import_as_on_the_robot("sim2real.deploy.policy_node", "sim2real.runtime.policy", "sim2real.runtime.bundle")
    assert "sim2real.deploy.policy_node" in loaded
    assert_no_training_code(loaded)


def test_refusing_a_library_is_noticed() -> None:
    with pytest.raises(AssertionError, match="pybullet is not installed on the robot"):
        import_as_on_the_robot("sim2real.sim.world")


# Prints what setup.py packages, without building anything.
PACKAGED = """
import json, os, setuptools, distutils.core
distribution = distutils.core.run_setup("setup.py", stop_after="init")
build = distribution.get_command_obj("build_py")
build.ensure_finalized()
data = [os.path.join(source, name) for _, source, _, names in build.data_files for name in names]
print(json.dumps({"packages": distribution.packages, "data": data, "shared": dict(distribution.data_files)}))
"""


@pytest.fixture(scope="module")
def packaged() -> dict[str, list[str]]:
    pytest.importorskip("setuptools", reason="setup.py needs setuptools")
    result = subprocess.run(
        [sys.executable, "-c", PACKAGED], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, list[str]] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_launch_is_not_a_package(packaged: dict[str, list[str]]) -> None:
    """A package of this name would shadow ROS 2's own `launch`."""
    assert not (ROOT / "launch" / "__init__.py").exists()
    assert {top(package) for package in packaged["packages"]} <= set(OWN)


def test_every_source_file_is_packaged(packaged: dict[str, list[str]]) -> None:
    folders = {".".join(path.relative_to(ROOT).parent.parts) for path in source_files()}
    assert folders == set(packaged["packages"]), "a folder without __init__.py, or one that setup.py leaves out"


def test_every_data_file_is_packaged(packaged: dict[str, list[str]]) -> None:
    data = {
        path.relative_to(ROOT).as_posix()
        for package in ("sim2real", "robot_drivers")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        if path.suffix != ".py" or "package_template" in path.parts
    }
    assert data == set(packaged["data"]), "add the file's kind to package_data in setup.py"


def test_ros_package_describes_the_same_version(packaged: dict[str, list[str]]) -> None:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    assert (manifest.findtext("name"), manifest.findtext("version")) == ("sim2real", sim2real.__version__)
    assert packaged["shared"]["share/ament_index/resource_index/packages"] == ["resource/sim2real"]
    assert (ROOT / "resource" / "sim2real").is_file()
