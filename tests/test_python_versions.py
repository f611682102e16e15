"""The Python versions are stated in several files, and must be the same in all of them."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_file_names_the_same_python_versions():
    text = {name: (ROOT / name).read_text() for name in ("setup.py", "pyproject.toml", "Makefile", "Dockerfile")}
    low, below = map(int, re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', text["setup.py"]).groups())
    assert f'target-version = "py3{low}"' in text["pyproject.toml"]
    assert f'python_version = "3.{low}"' in text["pyproject.toml"]
    assert f"(3, {low}) <= sys.version_info < (3, {below})" in text["Makefile"]
    for name in ("Makefile", "Dockerfile"):
        assert f"Python 3.{low} to 3.{below - 1} " in text[name], name
