"""Which images a run was trained on, as it notes them itself: it goes on with no others, and is judged on others.

``data.json`` in a run's folder::

    {"sim": {"folder", "images", "sha256"}, "real": {"folder", "images", "sha256"},
     "trained_on": [SHA-1 of the pixels of every rendered image it trains on, as the networks see it]}
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.adapt.domains import Domain
from sim2real.errors import AdaptationError, ConfigError
from sim2real.files import write_text
from sim2real.images.dataset import digest

DATA = "data.json"
BEGUN = ("detector.pt", "checkpoint.pt", "best.pt")  # what shows that a run has used images
FEWEST_UNSEEN = 4  # as many as are held out of the smallest dataset


def note_data(run: Path, source: tuple[Domain, Domain], target: tuple[Domain, Domain]) -> None:
    """Write down which images a run is trained and judged on, or check that they are the same again.

    Args:
        run: Its folder.
        source: Training and held-out images of the simulator.
        target: And of the camera.

    Raises:
        ConfigError: The run has used other images, or does not say which.
    """
    found = {"sim": _described(source), "real": _described(target)}
    file = run / DATA
    begun = any((run / name).is_file() for name in BEGUN)
    if file.is_file() and begun:
        known = _read(file)
        for name, now in found.items():
            before = known[name]
            if before["sha256"] != now["sha256"]:
                raise ConfigError(
                    f"{run} was trained on other images: --{name} was {before['images']} images of {before['folder']}, "
                    f"now it is {now['images']} of {now['folder']}; give the same as they were, or choose another --out"
                )
        return
    if begun:
        raise ConfigError(
            f"{run} does not say on which images it was trained (no {DATA}), so it cannot go on; choose another --out"
        )
    trained_on = [digest(image) for image in source[0].images]
    write_text(file, json.dumps({**found, "trained_on": trained_on}, indent=1) + "\n")


def unseen(run: Path, domain: Domain) -> tuple[Domain, int | None]:
    """Those of a domain's images that a run was not trained on.

    Args:
        run: Its folder.
        domain: Images of the simulator, of the size of the run's.

    Returns:
        The domain without the others, and how many these are; all of it and None where the run does not say on which
        images it was trained.

    Raises:
        ConfigError: The run's note is broken.
        AdaptationError: Too few images are left.
    """
    file = run / DATA
    if not file.is_file():
        return domain, None
    trained_on = set(_read(file)["trained_on"])
    new = np.flatnonzero([digest(image) not in trained_on for image in domain.images])
    if len(new) < FEWEST_UNSEEN:
        raise AdaptationError(
            f"{run} was trained on {len(domain) - len(new)} of the {len(domain)} images of '{domain.name}', which can "
            "therefore say nothing of it; render others with another seed"
        )
    return domain.take(new), len(domain) - len(new)


def _described(parts: tuple[Domain, Domain]) -> dict[str, Any]:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(repr((part.images.shape, sorted(part.classes.items()))).encode())
        for array in (part.images, part.masks, part.labels, part.pairs):
            whole.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    folder = parts[0].folder
    return {
        "folder": None if folder is None else str(folder),
        "images": sum(map(len, parts)),
        "sha256": whole.hexdigest(),
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        known = json.loads(file.read_text())
        return {
            **{name: {key: known[name][key] for key in ("folder", "images", "sha256")} for name in ("sim", "real")},
            "trained_on": list(known["trained_on"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is broken ({type(error).__name__}: {error}); copy the run again") from error
