"""Installed models: found by name, recognized from headers, checked without loading, and downloaded completely."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from ad_service.storage import models
from ad_service.storage.models import ModelCorrupt, ModelMissing
from blender_addon.wire import WireError
from tests.support import tiny_checkpoints as tiny_models
from tests.support.fake_hub import fake_hub


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models to copy from."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_models.tiny_sd15(folder / "sd15")
    tiny_models.tiny_pocket(folder / "pocket")
    tiny_models.tiny_single_file("sdxl", folder / "sdxl.safetensors")
    return folder


@pytest.fixture
def pocket(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(models, "POCKET", tiny / "pocket")
    return tiny / "pocket"


@pytest.fixture
def data_dir(tiny: Path, pocket: Path, tmp_path: Path) -> Path:
    """A data folder with pocket, a folder, a file, and entries that are not models."""
    home = tmp_path / "data" / "models"
    shutil.copytree(tiny / "sd15", home / "Realistic")
    shutil.copy(tiny / "sdxl.safetensors", home / "juggernaut.safetensors")
    save_file({"lora_unet_mid_block.lora_up.weight": torch.zeros(2, 2)}, home / "style.safetensors")
    (home / "old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    (home / "notes.txt").write_text("mine")
    (home / ".fetch-sd2").mkdir()
    return tmp_path / "data"


# ---------------------------------------------------------------------------------------------- listing


def test_families_are_recognized_from_configs_and_headers(data_dir: Path) -> None:
    found = [(m.name, m.family) for m in models.available(data_dir)]
    assert found == [("pocket", "pocket"), ("Realistic", "sd15"), ("juggernaut", "sdxl")]
    assert {entry.name for entry in models.unusable(data_dir)} == {"style", "old"}


def test_without_a_models_folder_only_pocket_is_listed(pocket: Path, tmp_path: Path) -> None:
    assert [m.name for m in models.available(tmp_path / "nowhere")] == ["pocket"]


def test_without_its_weights_pocket_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "POCKET", tmp_path / "nowhere")
    with pytest.raises(ModelMissing, match="installed: none"):
        models.find("pocket", tmp_path)


def test_title_and_license_are_read_from_a_file_header(data_dir: Path, tiny: Path) -> None:
    metadata = {"modelspec.title": "Juggernaut XL", "modelspec.license": "CreativeML Open RAIL++-M"}
    path = models.models_dir(data_dir) / "juggernaut.safetensors"
    assert models.find("juggernaut", data_dir).license == models.UNKNOWN_LICENSE
    save_file(load_file(tiny / "sdxl.safetensors"), path, metadata)
    found = models.find("juggernaut", data_dir)
    assert (found.title, found.license) == ("Juggernaut XL", "CreativeML Open RAIL++-M")


def test_the_license_is_read_from_a_model_card(data_dir: Path) -> None:
    (models.models_dir(data_dir) / "Realistic" / "README.md").write_text("---\nlicense: openrail++\n---\n# Realistic\n")
    assert models.find("realistic", data_dir).license == "openrail++"


def test_a_file_with_the_name_of_a_folder_keeps_its_suffix(data_dir: Path, tiny: Path) -> None:
    shutil.copy(tiny / "sdxl.safetensors", models.models_dir(data_dir) / "realistic.safetensors")
    assert models.find("Realistic", data_dir).family == "sd15"
    assert models.find("realistic.safetensors", data_dir).family == "sdxl"


def test_the_listing_imports_neither_torch_nor_diffusers() -> None:
    code = "import sys; from ad_service.storage import models; models.available(models.Path('.'));" + (
        "sys.exit(bool({'torch', 'diffusers', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    root = Path(models.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0


# ---------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize("name", ["juggernaut", "JUGGERNAUT", "juggernaut.safetensors"])
def test_names_are_found_in_any_case(data_dir: Path, name: str) -> None:
    assert models.find(name, data_dir).name == "juggernaut"


def test_the_error_for_a_missing_model_lists_the_installed_ones(data_dir: Path) -> None:
    with pytest.raises(ModelMissing) as caught:
        models.find("jugernaut", data_dir)
    assert "installed: pocket, Realistic, juggernaut" in caught.value.detail
    assert caught.value.data == {"model": "jugernaut", "installed": ["pocket", "Realistic", "juggernaut"]}
    assert "did you mean juggernaut?" in caught.value.detail
    assert caught.value.code == "model-missing"
    with pytest.raises(ModelMissing, match="models fetch sdxl"):
        models.find("SDXL", data_dir)


def test_an_unreadable_model_is_listed_as_unusable_beside_the_others(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "unet"))

    monkeypatch.setattr(models.checkpoints, "folder_family", refused)
    assert "juggernaut" in [model.name for model in models.available(data_dir)]
    (entry,) = [entry for entry in models.unusable(data_dir) if entry.name == "Realistic"]
    assert entry.reason.endswith("Realistic/unet cannot be read (Permission denied); check its permissions")


def test_pocket_is_listed_if_the_models_folder_is_unreadable(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refused)
    assert [model.name for model in models.available(data_dir)] == ["pocket"]
    (entry,) = models.unusable(data_dir)
    assert "models cannot be read (Permission denied)" in entry.reason


def test_a_folder_whose_name_is_not_utf8_is_unusable_and_hides_no_other(data_dir: Path) -> None:
    folder = os.fsencode(data_dir / "models") + b"/caf\xe9"
    try:
        os.mkdir(folder)  # noqa: PTH102  a Path cannot be made of bytes
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    assert {"pocket", "Realistic"} <= {model.name for model in models.available(data_dir)}
    (entry,) = [entry for entry in models.unusable(data_dir) if entry.name == "caf?"]
    assert "rename it" in entry.reason
    with pytest.raises(ModelMissing) as caught:
        models.find("missing", data_dir)
    assert json.dumps(caught.value.problem(), ensure_ascii=False).encode()


def test_texts_of_a_file_cannot_control_the_terminal(data_dir: Path, tiny: Path) -> None:
    file = data_dir / "models" / "evil.safetensors"
    metadata = {"modelspec.title": "\x1b[2Jgone \ud800" + "x" * 5000, "modelspec.license": "MIT\r\nok"}
    data = (tiny / "sdxl.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps({**json.loads(data[8 : 8 + length]), "__metadata__": metadata}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    model = models.find("evil", data_dir)
    assert model.title.startswith("?[2Jgone ?xxx") and len(model.title) == 200
    assert model.license == "MIT??ok"


def test_a_bad_header_is_read_once(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = data_dir / "models" / "large.safetensors"
    header = b'{"a": "' + b"x" * 1_000_000
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    read, calls = models.checkpoints.read_header, []
    monkeypatch.setattr(models.checkpoints, "read_header", lambda path: calls.append(path) or read(path))
    for _ in range(3):
        assert "large" in [entry.name for entry in models.unusable(data_dir)]
    assert calls.count(file) == 1


def test_a_header_that_takes_seconds_to_read_is_not_read(data_dir: Path) -> None:
    file = data_dir / "models" / "large.safetensors"
    with file.open("wb") as sparse:
        sparse.write((97_000_000).to_bytes(8, "little") + b"{")
        sparse.truncate(97_000_008)
    (entry,) = [entry for entry in models.unusable(data_dir) if entry.name == "large"]
    assert "not a safetensors file" in entry.reason


def test_a_config_with_more_layers_than_tensors_is_rejected(data_dir: Path) -> None:
    config = data_dir / "models" / "Realistic" / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "layers_per_block": 1_000_000}))
    with pytest.raises(ModelCorrupt, match="layers_per_block 1000000, but the weights have"):
        models.check(models.find("Realistic", data_dir))


@pytest.mark.parametrize(("name", "words"), [("style", "is a LoRA"), ("old", "pickled"), ("old.ckpt", "pickled")])
def test_finding_an_unusable_model_gives_the_reason(data_dir: Path, name: str, words: str) -> None:
    with pytest.raises(ModelCorrupt, match=words):
        models.find(name, data_dir)


def test_a_path_is_accepted_only_with_allow_paths(data_dir: Path, tiny: Path) -> None:
    for path in (tiny / "sd15", tiny / "sdxl.safetensors"):
        with pytest.raises(ModelMissing):
            models.find(str(path), data_dir)
        assert models.find(str(path), data_dir, allow_paths=True).path == path
    for sneaky in ("../models/Realistic", "./Realistic", "Realistic/unet", ".fetch-sd2", "notes.txt", ""):
        with pytest.raises(ModelMissing):
            models.find(sneaky, data_dir)
    with pytest.raises(ModelCorrupt, match="is not a model folder"):
        models.find(str(data_dir), data_dir, allow_paths=True)


# ---------------------------------------------------------------------------------------------- checking


def test_complete_models_pass_the_check(data_dir: Path) -> None:
    for model in models.available(data_dir):
        models.check(model, values=True)


def test_the_shipped_model_passes_the_check(tmp_path: Path) -> None:
    pocket = models.find("pocket", tmp_path)
    models.check(pocket, values=True)
    card = (models.POCKET.parent / "README.md").read_text(encoding="utf-8")
    assert f"license of the weights | {pocket.license}" in card


def test_a_damaged_model_is_found_without_loading_it(data_dir: Path) -> None:
    folder, file = models.find("Realistic", data_dir), models.find("juggernaut", data_dir)
    weights = folder.path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelCorrupt, match=r"unet.*cut short"):
        models.check(folder)
    file.path.write_bytes(file.path.read_bytes()[:-1])
    with pytest.raises(ModelCorrupt, match="cut short"):
        models.check(file)
    with pytest.raises(ModelCorrupt, match="cut short"):
        models.find("juggernaut", data_dir)


def test_nan_weights_are_found_when_values_are_checked(data_dir: Path) -> None:
    model = models.find("juggernaut", data_dir)
    tensors = load_file(model.path)
    tensors["first_stage_model.decoder.conv_in.bias"][0] = torch.nan
    save_file(tensors, model.path)
    models.check(model)
    with pytest.raises(
        ModelCorrupt, match=r"VAE contains NaN .* 1 tensors, first first_stage_model\.decoder\.conv_in\.bias"
    ):
        models.check(model, values=True)


# ---------------------------------------------------------------------------------------------- fetching


class FolderHub:
    """A hub that serves a folder; `fail` is called before each file."""

    def __init__(self, folder: Path, fail: Callable[[str], None] = lambda path: None) -> None:
        self.folder, self.fail = folder, fail
        self.sent: list[str] = []

    def files(self, repo: str) -> tuple[str, dict[str, int]]:
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return "c0ffee", {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in found}

    def download(self, repo: str, revision: str, files: list[str], folder: Path) -> None:
        for path in files:
            if not (folder / path).exists():
                self.fail(path)
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.folder / path, folder / path)
                self.sent.append(path)


@pytest.fixture
def repository(tiny: Path, tmp_path: Path) -> Path:
    """A typical repository: both precisions, pickles, other frameworks, a card."""
    folder = shutil.copytree(tiny / "sd15", tmp_path / "repository")
    tiny_models.save_folder(tiny_models.tiny("sd15"), folder, variant="fp16")
    for path in ("unet/diffusion_pytorch_model.bin", "unet/flax_model.msgpack", "v1-5-pruned.ckpt"):
        (folder / path).write_bytes(b"\x80")
    (folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"")
    (folder / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
    return folder


def test_fetch_downloads_one_set_of_half_precision_weights(repository: Path, pocket: Path, tmp_path: Path) -> None:
    hub = FolderHub(repository)
    model = models.fetch("SD15", tmp_path, hub=hub)
    assert (model.name, model.title, model.family) == ("sd15", "Stable Diffusion 1.5", "sd15")
    assert model.license == "CreativeML Open RAIL-M"
    assert model.origin == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert sorted(hub.sent) == [
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert {path.name for path in models.models_dir(tmp_path).iterdir()} == {"sd15", ".fetch-sd15.lock"}
    assert models.fetch("sd15", tmp_path, hub=FolderHub(tmp_path / "nowhere")) == model, "it is not downloaded twice"


def test_a_repository_can_be_fetched_by_its_id(repository: Path, pocket: Path, tmp_path: Path) -> None:
    model = models.fetch("someone/Realistic.v5", tmp_path, hub=FolderHub(repository))
    assert (model.name, model.license) == ("Realistic.v5", "creativeml-openrail-m")
    known = models.fetch("stable-diffusion-v1-5/Stable-Diffusion-v1-5", tmp_path, hub=FolderHub(repository))
    assert (known.name, known.license) == ("sd15", "CreativeML Open RAIL-M")


def test_shards_are_fetched_with_their_index() -> None:
    one = ["config.json", "diffusion_pytorch_model.safetensors"]
    unet = ["config.json", "diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model_old.safetensors"]
    unet += [f"diffusion_pytorch_model-0000{i}-of-00002.{ending}" for i in (1, 2) for ending in ("safetensors", "bin")]
    files = [f"unet/{name}" for name in unet] + [f"vae/{name}" for name in one]
    wanted = [name for name in models.wanted_files("a/b", files) if name.startswith("unet/")]
    assert wanted == [f"unet/{name}" for name in sorted(unet) if "bin" not in name and "old" not in name]


def test_an_interrupted_download_is_continued(repository: Path, pocket: Path, tmp_path: Path) -> None:
    def cut(path: str) -> None:
        if path.startswith("vae"):
            raise ConnectionError("connection lost")

    broken = FolderHub(repository, cut)
    with pytest.raises(ModelMissing, match="connection lost"):
        models.fetch("sd15", tmp_path, hub=broken)
    assert [m.name for m in models.available(tmp_path)] == ["pocket"], "an incomplete model is not listed"
    whole = FolderHub(repository)
    models.fetch("sd15", tmp_path, hub=whole)
    assert whole.sent and not set(whole.sent) & set(broken.sent)


def test_a_damaged_download_is_not_installed(repository: Path, pocket: Path, tmp_path: Path) -> None:
    file = repository / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ModelCorrupt, match=r"downloaded, but cannot be used.*cut short"):
        models.fetch("sd15", tmp_path, hub=FolderHub(repository))
    assert not any(path.is_dir() for path in models.models_dir(tmp_path).iterdir())


def test_a_disk_that_fills_up_during_a_download_is_reported(repository: Path, tmp_path: Path) -> None:
    def full(path: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(WireError) as caught:
        models.fetch("sd15", tmp_path, hub=FolderHub(repository, full))
    assert caught.value.code == "disk-full"


def test_a_model_larger_than_the_free_space_is_not_downloaded(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    hub = FolderHub(repository)
    with pytest.raises(WireError, match=r"it has 0\.0 GB, but .* has 0\.0 GB free"):
        models.fetch("sd15", tmp_path, hub=hub)
    assert not hub.sent


def test_a_second_download_of_the_same_model_is_rejected(repository: Path, tmp_path: Path) -> None:
    models.models_dir(tmp_path).mkdir()
    with FileLock(models.models_dir(tmp_path) / ".fetch-sd15.lock"), pytest.raises(WireError, match="another process"):
        models.fetch("sd15", tmp_path, hub=FolderHub(repository))


@pytest.mark.parametrize("name", ["no-such-name", "a/b/c", "../b", "http://a/b"])
def test_a_name_that_is_not_a_repository_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelMissing, match="neither one of sd15, sd2"):
        models.fetch(name, tmp_path)


def test_a_repository_without_a_unet_is_rejected(repository: Path, tmp_path: Path) -> None:
    shutil.rmtree(repository / "unet")
    with pytest.raises(ModelMissing, match="has no unet/diffusion_pytorch_model"):
        models.fetch("someone/thing", tmp_path, hub=FolderHub(repository))


# ---------------------------------------------------------------------------------------------- the real client


@pytest.fixture
def server(repository: Path) -> Iterator[str]:
    with fake_hub(repository) as hub:
        yield hub.url


def test_the_real_client_fetches_a_complete_model(server: str, pocket: Path, tmp_path: Path) -> None:
    model = models.fetch("someone/thing", tmp_path, hub=models.HuggingFaceHub(server))
    assert (model.family, model.path) == ("sd15", models.models_dir(tmp_path) / "thing")
    assert not (model.path / ".cache").exists()


def test_a_download_reports_how_much_has_arrived(repository: Path, pocket: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    models.fetch("sd15", tmp_path, hub=FolderHub(repository), on_progress=lambda *report: reports.append(report))
    assert reports[-1][1] > 0
    assert all(received <= total for received, total in reports)


def test_a_missing_repository_is_reported(server: str, tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="no such model"):
        models.fetch("someone/else", tmp_path, hub=models.HuggingFaceHub(server))


def test_the_error_without_a_network_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"check the network .* or copy the model"):
        models.fetch("sdxl", tmp_path, hub=models.HuggingFaceHub("http://127.0.0.1:9"))
