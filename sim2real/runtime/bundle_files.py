"""Bundles of any kind as folders: a manifest that hashes every file, nothing executable, nothing unpickled."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from sim2real.errors import BundleError

Golden = dict[str, NDArray[Any]]


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def pack_arrays(arrays: Golden) -> bytes:
    """Arrays as a plain archive."""
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]
    return archive.getvalue()


def write_files(
    path: Path,
    kind: str,
    version: int,
    files: Mapping[str, bytes],
    check: Callable[[Path], object],
    replace: bool,
) -> Path:
    """Write a bundle's files with their manifest to a temporary folder beside ``path``, check it, and rename it.

    Raises:
        BundleError: ``path`` exists and ``replace`` is not set, or ``check`` refuses the parts.
    """
    if path.exists() and not replace:
        raise BundleError(f"{path} exists; choose another path, or pass replace=True to write over it")
    manifest = {
        "kind": kind,
        "format_version": version,
        "files": {name: sha256(data) for name, data in files.items()},
    }
    whole = {**files, "manifest.json": json.dumps(manifest, indent=1).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, data in whole.items():
            with open(temporary / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o755)
        check(temporary)
        if path.exists():
            previous = path.with_name(f".{path.name}.previous")
            shutil.rmtree(previous, ignore_errors=True)
            path.rename(previous)
            try:
                temporary.rename(path)
            except BaseException:
                previous.rename(path)
                raise
            shutil.rmtree(previous)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def unpack_arrays(data: bytes, name: str = "golden.npz") -> Golden:
    """Arrays by name from a plain archive; nothing is unpickled.

    Raises:
        BundleError: It is none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {
                entry.removesuffix(".npy"): np.load(io.BytesIO(archive.read(entry)), allow_pickle=False)
                for entry in archive.namelist()
            }
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{name} is not a plain array archive ({error}); export the run again") from error


def kind_of(path: Path) -> str:
    """Read which kind of bundle a folder says it is.

    Raises:
        BundleError: It is none.
    """
    return str(_manifest(path, "bundle")["kind"])


def _manifest(path: Path, kind: str) -> dict[str, Any]:
    file = path / "manifest.json"
    if not file.is_file():
        wanted = kind.removeprefix("sim2real.").replace("_", " ")
        raise BundleError(
            f"{path} is not a {wanted}: it has no manifest.json; give one that 'sim2real train' wrote, RUN/bundle"
        )
    try:
        manifest = json.loads(file.read_text())
        return {
            "kind": manifest["kind"],
            "format_version": manifest["format_version"],
            "files": dict(manifest["files"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} cannot be read ({error}); export the run again") from error


def read_files(
    path: Path, kind: str, version: int, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, bytes]:
    """All files of a bundle, each as its manifest says; nothing in them is executed or unpickled.

    Raises:
        BundleError: What is missing, altered, unlisted or of another kind or version, and what to do.
    """
    manifest = _manifest(path, kind)
    listed = manifest["files"]
    if manifest["kind"] != kind or manifest["format_version"] != version:
        raise BundleError(
            f"{path} is '{manifest['kind']}' version {manifest['format_version']}; this program reads '{kind}' version "
            f"{version} here. Install the sim2real version that wrote it, or export again"
        )
    for name in required:
        if name not in listed:
            raise BundleError(f"the manifest lists no {name}; the bundle is incomplete, export the run again")
    unknown = [name for name in listed if name not in required + optional]
    if unknown:
        raise BundleError(f"the manifest lists unknown files {unknown}; a bundle holds only {required + optional}")
    present = {entry.name for entry in path.iterdir()} - {"manifest.json"}
    if present - set(listed):
        raise BundleError(
            f"{path} holds files that its manifest does not list: {sorted(present - set(listed))}; remove them"
        )
    files = {}
    for name, digest in listed.items():
        file = path / name
        if not file.is_file():
            raise BundleError(f"{name} is missing from {path}; copy the whole bundle again")
        data = file.read_bytes()
        if name.endswith(".onnx"):
            _refuse_pickle(name, data)
        if sha256(data) != digest:
            raise BundleError(f"{name} was altered: its SHA-256 is not the manifest's; copy or export the bundle again")
        files[name] = data
    return files


def _refuse_pickle(name: str, data: bytes) -> None:
    if data[:2] == b"PK" or data[:1] == b"\x80":
        raise BundleError(
            f"{name} is a pickle or a torch checkpoint, not an ONNX network; such files can run code and are never "
            "opened here. Export with 'sim2real export'"
        )


T = TypeVar("T", bound=BaseModel)


def parse_model(model: type[T], data: bytes, name: str) -> T:
    """Read a bundle's JSON file.

    Raises:
        BundleError: It does not hold what it must.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{name}: {where}: {first['msg']}; export the run again") from error


def parse_provenance(data: bytes) -> dict[str, Any]:
    """Read where a bundle comes from.

    Raises:
        BundleError: It is not a JSON object.
    """
    try:
        provenance = json.loads(data)
    except ValueError as error:
        raise BundleError(f"provenance.json cannot be read ({error}); export the run again") from error
    if not isinstance(provenance, dict):
        raise BundleError("provenance.json is not a JSON object; export the run again")
    return provenance
