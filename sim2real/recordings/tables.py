"""Files of numbers as recordings have them, ``.npz`` and ``.csv``: read carefully, with one clear error a fault."""

from __future__ import annotations

import csv
import io
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from sim2real.errors import Sim2RealError
from sim2real.types import Array

DELIMITERS = ",;\t"
_BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
           struct.error)  # fmt: skip


class LogError(Sim2RealError):
    """A recording cannot be read or trusted. The message names file, column and row."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file, as they are.

    Raises:
        LogError: It is no ``.npz`` file, cut off, damaged, or holds objects.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no archive of named arrays, as numpy.savez writes it")
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except _BROKEN as error:
        raise LogError(
            f"{path} is not a readable .npz file of plain arrays ({str(error) or type(error).__name__}); it may be cut "
            "off or damaged, copy or write it again"
        ) from error


def numbers(path: Path, name: str, values: NDArray[Any]) -> Array:
    """An array as floating-point numbers.

    Raises:
        LogError: It holds text or something else.
    """
    if values.dtype.kind not in "fiub":
        raise LogError(f"{path}: '{name}' holds {values.dtype}, not numbers")
    return np.asarray(values, dtype=np.float64)


def yaml_fault(error: Exception) -> str:
    """Fault of a YAML file, in one line, with its line (from 1) where that is known."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())


@dataclass(frozen=True)
class Columns:
    """A table of text with headings; only columns that are asked for need to be numbers.

    Attributes:
        path: The file.
        header: Headings without the spaces around them.
        rows: One list of cells a row.
        comma: Whether numbers may have a decimal comma, since commas do not separate cells.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    comma: bool = False

    def numbers(self, columns: Sequence[int]) -> Array:
        """Columns by number, as [T, C].

        Raises:
            LogError: A cell is missing or no number; the message names column and row (from 0).
        """
        table = np.empty((len(self.rows), len(columns)))
        for number, row in enumerate(self.rows):
            for position, column in enumerate(columns):
                try:
                    table[number, position] = float(row[column].replace(",", ".") if self.comma else row[column])
                except ValueError:
                    raise LogError(
                        f"{self.path}: '{self.header[column]}' is '{row[column]}' in row {number}, not a number"
                    ) from None
        return table


def read_csv(path: Path) -> Columns:
    """A table in UTF-8, separated by commas, semicolons, tabs or spaces, with headings in its first line.

    Between semicolons or tabs numbers may have a decimal comma, as spreadsheets of many countries write them.

    Raises:
        LogError: It is no text, has no rows, or a row has another number of cells than there are headings.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(DELIMITERS, key=first.count) if any(c in first for c in DELIMITERS) else " "
        rows = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LogError(f"{path} is not a table in UTF-8 text: {error}; export it as CSV") from error
    if "\0" in text:
        raise LogError(f"{path} is not a table in UTF-8 text: it holds zero bytes; export it as CSV")
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    if len(rows) < 2:
        raise LogError(f"{path} holds no rows; a first line of column names and one row a sample are needed")
    header = tuple(name.strip() for name in rows[0])
    for number, row in enumerate(rows[1:]):
        if len(row) != len(header):
            raise LogError(f"{path}: row {number} has {len(row)} values, the first line names {len(header)} columns")
    return Columns(path, header, tuple(rows[1:]), delimiter != ",")


def names_of(files: Sequence[Path]) -> list[str]:
    """A name for every recording: its file's, with as many folders before it as tell it from the others.

    Raises:
        LogError: A file is given twice.
    """
    whole = [file.resolve() for file in files]
    twice = sorted({file.stem for file in whole if whole.count(file) > 1})
    if twice:
        raise LogError(f"several recordings are called {', '.join(twice)}: the same file is given twice")
    names, depth = [file.stem for file in files], 1
    while shared := {name for name in names if names.count(name) > 1}:
        depth += 1
        if depth > max(len(file.parts) for file in whole):  # only their suffix tells them apart
            return [str(file) for file in files]
        longer = ["/".join((*file.parts[-depth:-1], file.stem)) for file in whole]
        names = [long if name in shared else name for name, long in zip(names, longer, strict=True)]
    return names


def canonical_names(found: Sequence[Any], joints: Collection[str], aliases: Mapping[str, str]) -> list[str]:
    """Joint names as the robot has them: other names it is known by and other case are translated, bytes decoded."""
    exact = {**aliases, **{joint: joint for joint in joints}}
    folded = {name.casefold(): joint for name, joint in exact.items()}
    texts = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in found]
    return [exact.get(name, folded.get(name.casefold(), name)) for name in texts]


def prefixed(found: Sequence[Any], joints: Collection[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """Names that are the robot's joints but for a prefix or suffix that all share: ``left_elbow``, ``elbow.pos``.

    Returns:
        Name → joint, for every joint; empty where not all are found so, or where several prefixes fit.
    """
    texts = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in found]
    known = {name.casefold(): joint for name, joint in {**aliases, **{joint: joint for joint in joints}}.items()}
    families: dict[tuple[str, str], dict[str, str]] = {}
    for text in texts:
        for name, joint in known.items():
            before, own, after = text.casefold().partition(name)
            if own and (not before or before[-1] in "/_.:-") and (not after or after[0] in "/_.:-"):
                families.setdefault((before, after), {})[text] = joint
    whole = [names for names in families.values() if sorted(names.values()) == sorted(joints)]
    return whole[0] if len(whole) == 1 else {}


def match_joints(found: Sequence[Any], joints: Sequence[str], aliases: Mapping[str, str], path: Path) -> list[int]:
    """Column of every joint of the robot among the names ``found``; case and a shared prefix do not matter.

    Raises:
        LogError: A joint is missing or named twice.
    """
    known = canonical_names(found, joints, aliases)
    if not set(joints) <= set(known):
        known = canonical_names(found, joints, {**aliases, **prefixed(found, joints, aliases)})
    counted = sorted(int(name) for name in known if name.isdecimal())
    if len(counted) == len(known) == len(joints) and counted in [list(range(n, n + len(joints))) for n in (0, 1)]:
        known = [joints[int(name) - counted[0]] for name in known]  # numbers of joints from the base outwards
    for joint in joints:
        if known.count(joint) != 1:
            what = "lacks" if joint not in known else "holds more than once"
            raise LogError(
                f"{path} {what} the joint '{joint}'; it has {', '.join(map(str, found))}, the robot {', '.join(joints)}"
            )
    return [known.index(joint) for joint in joints]
