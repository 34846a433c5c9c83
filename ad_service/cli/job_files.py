"""Job files: JSON, or a result's PNG, which contains its job. Inputs are found by sha256 or by path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ad_service.storage.blobs import BlobStore
from ad_service.worker.image_files import job_document
from blender_addon import wire
from blender_addon.wire import SHA256, JobRequest, WireError


@dataclass(frozen=True)
class JobFile:
    """A job with its inputs: `pictures` are their bytes by sha256, `files` their file names by input, if known."""

    request: JobRequest
    pictures: Mapping[str, bytes]
    files: Mapping[str, str]

    def read(self, sha: str) -> bytes:
        return self.pictures[sha]


def load(path: Path, store: BlobStore) -> JobFile:
    """The job in a .json file or in a result's .png.

    An input is a path inside the folder of the job file, or a sha256: of a blob in the store, or of the file next to
    the job whose name `files` gives. A job file may come from anyone, so that no other file is read.

    Raises: WireError.
    """
    data = read_file(path, "the job file")
    if data.startswith(b"\x89PNG"):
        document = job_document(path.name, data)
    else:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise WireError("invalid-request", f"{path} is neither a PNG nor JSON: {error}") from error
    if not isinstance(document, Mapping):
        raise WireError("invalid-request", f"{path} contains {type(document).__name__}, not a job")
    names = document.get("files")
    names = names if isinstance(names, Mapping) else {}
    inputs = document.get("inputs", {})
    if not isinstance(inputs, Mapping):
        raise WireError("invalid-request", f"{path}: inputs is {inputs!r}, not an object of picture names and files")
    found: dict[str, tuple[str, bytes]] = {}
    for picture, named in inputs.items():
        found[str(picture)] = _read_input(str(picture), str(named), str(names.get(picture, "")), path.parent, store)
    return assemble(document, found)


def assemble(document: Mapping[str, Any], found: Mapping[str, tuple[str, bytes]]) -> JobFile:
    """A checked job from its document and its inputs, as (file name, bytes) by name. Raises: WireError."""
    shas = {picture: hashlib.sha256(data).hexdigest() for picture, (_, data) in found.items()}
    return JobFile(
        JobRequest.parse({**document, "inputs": shas}),
        {shas[picture]: data for picture, (_, data) in found.items()},
        {picture: name.encode(errors="replace").decode() for picture, (name, _) in found.items() if name},
    )


def read_file(path: Path, what: str) -> bytes:
    """The file's bytes; `what` describes it in the error. Raises: WireError `invalid-request`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise WireError("invalid-request", f"{what} {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a character that file names cannot contain
        raise WireError("invalid-request", f"{what} {str(path)!r} cannot be read: {error}") from error


def _read_inside(folder: Path, named: str, what: str) -> bytes:
    """The bytes of an ordinary file in a folder or below it; `what` describes it in the error.

    Raises: WireError `invalid-request`, `too-large`.
    """
    path = folder / named
    anchored = PurePosixPath(named).anchor or PureWindowsPath(named).anchor  # looking at \\\\host\\share would connect
    try:
        inside = not anchored and path.resolve().is_relative_to(folder.resolve())
        if inside and path.exists() and not path.is_file():
            raise WireError("invalid-request", f"{what} {path} is not an ordinary file")
        size = path.stat().st_size if inside and path.exists() else 0
    except (OSError, ValueError, RuntimeError) as error:
        raise WireError("invalid-request", f"{what} {named!r} cannot be read: {error}") from error
    if not inside:
        raise WireError(
            "invalid-request", f"{what} {named!r} is outside of {folder}, the folder of the job file; copy it there"
        )
    if size > wire.MAX_BLOB_BYTES:
        raise WireError("too-large", f"{what} {path} has {size:,} bytes; {wire.MAX_BLOB_BYTES:,} is the limit")
    return read_file(path, what)


def _read_input(picture: str, named: str, name: str, folder: Path, store: BlobStore) -> tuple[str, bytes]:
    if not SHA256.fullmatch(named):
        return Path(named).name, _read_inside(folder, named, f"the picture {picture}")
    if store.has(named):
        return name, store.read(named)
    neighbor = folder / Path(name).name
    if name and neighbor.is_file():
        data = _read_inside(folder, neighbor.name, f"the picture {picture}")
        if hashlib.sha256(data).hexdigest() == named:
            return name, data
        raise WireError(
            "blob-missing",
            f"{neighbor} has changed since it was the {picture} of this job; restore it",
        )
    label = f"{picture} ({name})" if name else picture
    raise WireError(
        "blob-missing",
        f"the picture {label} with sha256 {named} is neither in {store.folder} nor next to the job file; put it there",
    )
