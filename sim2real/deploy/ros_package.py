"""Export of a bundle as a ROS 2 package that ``colcon build`` builds and a robot runs without training software."""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from string import Template
from xml.sax.saxutils import escape

from sim2real.errors import BundleError, ConfigError
from sim2real.runtime.bundle import PolicyBundle

TEMPLATES = Path(__file__).parent / "package_template"
ENTRY = "sim2real.deploy.policy_node"
ADAPTERS_MODULE = "sim2real.deploy.adapters"
OURS = ("sim2real", "robot_drivers")
# Training software. Nothing of it may reach the robot.
FORBIDDEN = ("torch", "pybullet", "rsl_rl", "tensordict", "gymnasium")
FORBIDDEN_OURS = tuple(f"sim2real.{part}" for part in ("sim", "tasks", "learn", "evaluate", "adapt"))


def export_ros_package(bundle: Path, directory: Path, name: str) -> Path:
    """Write ``directory/name``, an ament_python package with the bundle and its runtime.

    An earlier export of the same name is replaced; anything else in its place is left alone.

    Args:
        bundle: A policy bundle.
        directory: Usually a workspace's ``src``.
        name: Package name (REP 144: lower case, digits, underscores).

    Raises:
        ConfigError: The name is not allowed, or something else is in its place.
        BundleError: The bundle is not sound, or the runtime would pull in training software.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name) or "__" in name or name in OURS:
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
    for module, source in runtime_modules().items():
        file = folder / name / "_runtime" / Path(*module.split("."))
        file = file / "__init__.py" if source.name == "__init__.py" else file.with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, file)


def runtime_modules() -> dict[str, Path]:
    """Every module of ours that the policy node needs, by name, found by following its imports.

    Raises:
        BundleError: One of them imports training software.
    """
    found: dict[str, Path] = {}
    waiting = [ENTRY, *_adapters()]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        if module.startswith(FORBIDDEN_OURS):
            raise BundleError(f"the robot's runtime would import {module}; deploy must not depend on training code")
        source = _source(module)
        if source is None:
            continue  # an attribute of a module, not a module
        found[module] = source
        parent = module.rpartition(".")[0]
        waiting += [parent] if parent else []
        for imported in _imports(source):
            if imported.split(".")[0] in FORBIDDEN:
                raise BundleError(f"{module} imports {imported}, which must not be needed on a robot")
            if imported.split(".")[0] in OURS:
                waiting.append(imported)
    return found


def _adapters() -> Iterator[str]:
    """Adapter modules, which the node imports by name at run time; read from the literal dict."""
    source = _source(ADAPTERS_MODULE)
    assert source is not None
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for value in node.value.values:
                yield ast.literal_eval(value).partition(":")[0]


def _source(module: str) -> Path | None:
    """File of one of our modules; None where there is no such module."""
    package, *rest = module.split(".")
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent.joinpath(*rest)
    candidates = (path / "__init__.py", path.with_suffix(".py")) if rest else (path / "__init__.py",)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imports(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text())
    checked_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in checked_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            if node.module.split(".")[0] in OURS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
