"""Export of a bundle as a ROS 2 package that ``colcon build`` builds and a robot runs without training software."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from string import Template
from xml.sax.saxutils import escape

from sim2real.errors import BundleError, ConfigError
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import recorded_goal
from sim2real.runtime.signals import Signals, load_signals

PACKAGE = Path(__file__).parents[1]
TEMPLATES = Path(__file__).parent / "package_template"
# What a robot installs, copied whole.
BASE = ("__init__.py", "errors.py", "registry.py", "types.py")
FOLDERS = ("runtime", "deploy")
LEFT_OUT = {"deploy/ros_package.py", "deploy/record.py", "deploy/driver_node.py", "deploy/driver_topics.py"}
ALLOWED = {"numpy", "sim2real"} | set(sys.stdlib_module_names)  # what a module of one's own may import


def export_ros_package(bundle: Path, directory: Path, name: str) -> Path:
    """Write ``directory/name``, an ament_python package with the bundle and its runtime.

    An earlier export of the same name is replaced; anything else in its place is left alone.

    Args:
        bundle: A policy bundle.
        directory: Usually a workspace's ``src``.
        name: Package name (REP 144: lower case, digits, underscores).

    Raises:
        ConfigError: The name is not allowed, or something else is in its place.
        BundleError: The bundle is not sound, or a module of its own cannot travel along.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name) or "__" in name or name == "sim2real":
        raise ConfigError(f"'{name}' is not a ROS 2 package name: lower case letters, digits and single underscores")
    loaded = PolicyBundle.load(bundle)
    target = directory / name
    if target.exists() and not (target / name / "_runtime").is_dir():
        raise ConfigError(f"{target} exists and is not an exported policy; choose another --name or folder")
    values = {
        "name": name,
        # A bundle's own words, escaped for package.xml; no template puts them into code.
        "robot": escape(loaded.robot.name),
        "task": escape(loaded.spec.task),
        "commit": escape(str(loaded.provenance.get("commit", "unknown"))),
        "parameters": _parameters(loaded),
        "trusted": json.dumps(own_modules(loaded) or [""]),
        "perception": str("object_pos" in _signals(loaded).needs),
    }
    directory.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=directory))
    try:
        _write(temporary, loaded, values)
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _write(folder: Path, bundle: PolicyBundle, values: dict[str, str]) -> None:
    name = values["name"]
    for template, path in (
        ("package.xml", "package.xml"),
        ("setup.py", "setup.py"),
        ("setup.cfg", "setup.cfg"),
        ("policy_node.py", f"{name}/policy_node.py"),
        ("perception_node.py", f"{name}/perception_node.py"),
        ("launch.py", f"launch/{name}.launch.py"),
        ("params.yaml", "config/params.yaml"),
    ):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template((TEMPLATES / f"{template}.in").read_text()).substitute(values))
    (folder / name / "__init__.py").write_text("")
    (folder / "resource").mkdir()
    (folder / "resource" / name).write_text("")
    shutil.copytree(bundle.path, folder / "bundle")
    for source, place in runtime_files(bundle).items():
        file = folder / name / "_runtime" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, file)


def runtime_files(bundle: PolicyBundle) -> dict[Path, Path]:
    """Every file that runs on the robot, with its place in the package: ours, and the bundle's own signals.

    Raises:
        BundleError: A module of one's own cannot be found, or imports what a robot may not have.
    """
    ours = [PACKAGE / name for name in BASE]
    ours += [file for folder in FOLDERS for file in sorted((PACKAGE / folder).glob("*.py"))]
    files = {file: Path("sim2real") / file.relative_to(PACKAGE) for file in ours}
    files = {file: path for file, path in files.items() if str(path.relative_to("sim2real")) not in LEFT_OUT}
    for module in own_modules(bundle):
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise BundleError(f"the bundle names '{module}', which is not installed here; run from the folder it is in")
        source = Path(spec.origin)
        foreign = sorted({top for top in _imports(source) if top not in ALLOWED | {module.partition(".")[0]}})
        if foreign:
            raise BundleError(
                f"{source} would run on the robot and imports {', '.join(foreign)}; keep signals in a module that "
                "imports NumPy and sim2real.runtime only"
            )
        files[source] = Path(*module.split(".")).with_suffix(".py")
    return files


def _signals(bundle: PolicyBundle) -> Signals:
    return load_signals(bundle.spec.signals, bundle.robot, bundle.chain())


def _parameters(bundle: PolicyBundle) -> str:
    """Lines of params.yaml that depend on the robot: where it goes, and for a drone how its state arrives."""
    goal = bundle.spec.goal
    what = f"{', '.join(goal.components)} in {goal.unit}, frame {goal.frame}"
    recorded = recorded_goal(bundle, _signals(bundle))
    lines = [f"# Where it goes before anybody sends a goal on the topic goal: {what}"]
    if recorded is not None:
        lines += ["# (the goal of the episode that the bundle was recorded in)", f"goal: {recorded.tolist()}"]
    elif bundle.robot.interface == "cmd_vel_legacy":
        lines += [f"# goal: {[0.0, 0.0, 1.0, *[0.0] * goal.size][: goal.size]}"]
        lines += ["# Its state: pose_twist (topics pose and twist) or odom.", "# state_source: pose_twist"]
    else:
        lines += [f"# goal: {[0.0] * goal.size}"]
    return "\n".join(f"    {line}" for line in lines)


def own_modules(bundle: PolicyBundle) -> list[str]:
    """Modules outside this package that a bundle names: signals and interface of one's own."""
    named = (bundle.spec.signals, bundle.robot.interface)
    return sorted({name.partition(":")[0] for name in named if ":" in name and not name.startswith("sim2real.")})


def _imports(file: Path) -> Iterator[str]:
    """Top-level names of everything that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]
