"""Self-contained HTML pages from the templates beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from sim2real.files import write_text

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
)


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Render ``template`` (a file name) with ``values`` and write it to ``path`` at once.

    Returns:
        ``path``.
    """
    return write_text(path, _TEMPLATES.get_template(template).render(**values))
