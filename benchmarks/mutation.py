"""How many planted faults the tests notice, in the modules where a silent fault costs most.

    python benchmarks/mutation.py sim2real.runtime.safety tests/runtime/test_safety.py -k "not landing" --json FILE
    python benchmarks/mutation.py sim2real.runtime.safety tests/runtime/test_safety.py --again --json FILE

One fault at a time is planted in a function or a constant: a comparison, an operator, a number, a condition, a
statement left out. The tests are collected and run once as they are; then every mutant runs in a fork of that process,
until the first test fails. The second command above runs slow tests on the survivors only. Faults in messages are left
out, and so are lines that only import or annotate.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from sim2real.provenance import made as facts

ROOT = Path(__file__).parents[1]
COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
OPERATED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMED = {"any": "all", "all": "any", "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Copies of a node with one fault each."""
    if isinstance(node, ast.Compare):
        for new in COMPARED[type(node.ops[0])]:
            yield _with(node, ops=[new(), *node.ops[1:]])
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATED:
        yield _with(node, op=OPERATED[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield _with(node, value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield _with(node, value=node.value + 1)
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Attribute) and node.attr in NAMED:
        yield _with(node, attr=NAMED[node.attr])
    elif isinstance(node, ast.Name) and node.id in NAMED:
        yield _with(node, id=NAMED[node.id])
    if isinstance(node, ast.Raise | ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        yield ast.Pass()


def _with(node: ast.AST, **changes: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def mutants(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """Line, description and tree of every mutant."""

    def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list") or isinstance(node, ast.JoinedStr | ast.Subscript):
                if name != "value" or isinstance(node, ast.JoinedStr):
                    continue
            for index, child in enumerate(value) if isinstance(value, list) else ((None, value),):
                if isinstance(child, ast.AST) and not isinstance(child, ast.Import | ast.ImportFrom):
                    yield node, name, index
                    yield from places(child)

    for parent, name, index in list(places(tree)):
        holder = getattr(parent, name)
        child = holder if index is None else holder[index]
        for changed in variants(child):
            ast.copy_location(changed, child)
            if index is None:
                setattr(parent, name, changed)
            else:
                holder[index] = changed
            said = "left out: " + ast.unparse(child) if isinstance(changed, ast.Pass) else ast.unparse(changed)
            before = "" if isinstance(changed, ast.Pass) else f"{ast.unparse(child)}  ->  "
            yield getattr(child, "lineno", 0), (before + said).splitlines()[0], tree
            if index is None:
                setattr(parent, name, child)
            else:
                holder[index] = child


def plant(module: ModuleType, tree: ast.Module) -> None:
    """Give the loaded module the code of a mutant: its functions stay the same objects, whoever has imported them."""
    made = ModuleType(module.__name__)
    made.__file__ = module.__file__
    known = sys.modules[module.__name__]
    sys.modules[module.__name__] = made  # dataclasses look themselves up
    exec(compile(ast.fix_missing_locations(tree), str(module.__file__), "exec"), made.__dict__)
    sys.modules[module.__name__] = known
    _take(module, made, module.__name__)


def _take(old: object, new: object, where: str) -> None:
    for name, value in list(vars(new).items()):
        had = vars(old).get(name)
        if isinstance(value, FunctionType) and isinstance(had, FunctionType) and value.__module__ == where:
            for part in ("__code__", "__defaults__", "__kwdefaults__"):
                setattr(had, part, getattr(value, part))
        elif isinstance(value, property) and isinstance(had, property) and had.fget and value.fget:
            had.fget.__code__ = value.fget.__code__  # type: ignore[attr-defined]
        elif isinstance(value, classmethod | staticmethod) and isinstance(had, classmethod | staticmethod):
            had.__func__.__code__ = value.__func__.__code__
        elif inspect.isclass(value) and inspect.isclass(had) and value.__module__ == where:
            _take(had, value, where)
        elif isinstance(value, int | float | str | tuple) and not name.startswith("__") and had != value:
            setattr(old, name, value)


class Forks:
    """A pytest plugin that runs the collected tests as they are, then once a mutant.

    Attributes:
        survivors, killed, total: Result.
    """

    def __init__(self, module: str, part: int, parts: int, only: list[dict[str, object]] | None) -> None:
        self._module, self._part, self._parts, self._only = module, part, parts, only
        self._failed = False
        self.survivors: list[dict[str, object]] = []
        self.killed = self.total = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure."""
        self._failed |= report.failed

    def _run(self, items: list[pytest.Item]) -> bool:
        if len(items) < 2:  # the one before the first must be another, so that its fixtures are made anew
            raise pytest.UsageError("choose at least two tests")
        for item, following in zip(items, [*items[1:], items[0]], strict=True):  # so that fixtures are kept
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._failed:
                return False
        return True

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests, then the mutants."""
        begun = time.monotonic()
        if not self._run(session.items):
            raise pytest.UsageError("the tests fail without a mutant")
        longest_s = int(10.0 * (time.monotonic() - begun)) + 10
        module = importlib.import_module(self._module)
        tree = ast.parse(Path(str(module.__file__)).read_text())
        for number, (line, said, changed) in enumerate(mutants(tree)):
            if number % self._parts != self._part:
                continue
            if self._only is not None and {"line": line, "fault": said} not in self._only:
                continue
            self.total += 1
            child = os.fork()
            if child == 0:
                self._child(session.items, module, changed, longest_s)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                self.killed += 1
            else:
                self.survivors.append({"line": line, "fault": said})
        return True

    def _child(self, items: list[pytest.Item], module: ModuleType, tree: ast.Module, longest_s: int) -> None:
        signal.alarm(longest_s)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1), os.dup2(nothing, 2)
        try:
            plant(module, tree)
            passed = self._run(items)
        except BaseException:  # noqa: BLE001 - a mutant that cannot even be loaded is noticed too
            passed = False
        os._exit(not passed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("tests", nargs="+")
    parser.add_argument("-k", default="", help="as of pytest")
    parser.add_argument("--noconftest", action="store_true", help="as of pytest; it starts faster")
    parser.add_argument("--slice", default="1/1", help="every nth mutant, from this one on")
    parser.add_argument("--again", action="store_true", help="only those that survived according to --json")
    parser.add_argument("--json", type=Path, help="take the result into this file")
    given = parser.parse_args()
    part, parts = (int(number) for number in given.slice.split("/"))
    known = {"made": facts(), "modules": {}}
    if given.json and given.json.is_file():
        known = json.loads(given.json.read_text())
    before = known["modules"][given.module] if given.again else {"mutants": 0, "killed": 0, "tests": []}
    forks = Forks(given.module, part - 1, parts, before["survivors"] if given.again else None)
    options = ["-q", "--tb=no", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-k", given.k]
    options += ["--noconftest"] if given.noconftest else []
    if pytest.main([*options, *given.tests], plugins=[forks]) not in (0, 5) or not forks.total:
        raise SystemExit("the tests did not run")
    row = {
        "mutants": before["mutants"] or forks.total,
        "killed": before["killed"] + forks.killed,
        "survivors": forks.survivors,
        "tests": sorted({*before["tests"], *given.tests}),
    }
    print(f"\n{given.module}: {row['killed']} of {row['mutants']} mutants killed")
    for survivor in forks.survivors:
        print(f"  line {survivor['line']}: {survivor['fault']}")
    if given.json:
        known["modules"][given.module] = row
        given.json.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
