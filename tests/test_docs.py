"""The documentation says what the code does: listings and reference are current, links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "sim2real|robot_drivers|calibration|benchmarks|tests|launch|examples"
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]+)`")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_listings_and_reference_are_current(generate):
    old = [str(page) for page, text in generate.pages().items() if not page.is_file() or page.read_text() != text]
    assert not old, f"run 'python docs/generate.py': {old}"


def test_every_setting_has_a_line_in_its_docstring_or_a_name_that_says_it(generate):
    from sim2real.config import SimConfig

    assert set(generate.attributes(SimConfig)) >= {"robots", "workers", "decimation"}


def test_links_lead_somewhere():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, broken


def test_every_page_is_reached_from_the_index():
    seen, waiting = set(), [ROOT / "README.md", ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [page.parent / t for t in re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())]
    lost = [str(page.relative_to(ROOT)) for page in PAGES if page.resolve() not in seen]
    assert not lost, lost


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_paths_in_the_documentation_exist():
    wrong = []
    for page in PAGES:
        for path in PATH.findall(page.read_text()):
            if not (ROOT / path).exists() and not path.endswith("-v0"):
                wrong.append(f"{page.relative_to(ROOT)}: {path}")
    assert not wrong, wrong


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_and_are_short(example):
    assert len(example.read_text().splitlines()) <= 40
    done = subprocess.run([sys.executable, str(example)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
