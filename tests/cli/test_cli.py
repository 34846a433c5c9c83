"""The command line: files, output and exit codes; an error is one line that names the argument and its value."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import ad_service
import ad_service.worker.runner
from ad_service.cli import main, record
from ad_service.storage.blobs import BlobStore
from ad_service.storage.tokens import Tokens
from ad_service.worker.engine import Outcome, Read, Step, Steps
from ad_service.worker.image_files import encode_png, job_document
from blender_addon import wire
from blender_addon.wire import JobRequest, WireError
from tests.support.live_service import ROOT, LiveService
from tests.support.photographs import tiles

Capture = pytest.CaptureFixture[str]


class StubRunner:
    """Returns noise of the requested size; `error` is raised in the middle."""

    request: JobRequest
    error: BaseException | None = None

    def __init__(self, data_dir: Path, *, allow_paths: bool) -> None:
        assert allow_paths

    def run(self, request: JobRequest, read: Read, files: dict[str, str]) -> Steps:
        type(self).request = request
        assert all(hashlib.sha256(read(sha)).hexdigest() == sha for sha in request.inputs.values())
        yield Step(0.5, "Step 1 of 2")
        if self.error is not None:
            raise self.error
        random = np.random.default_rng(request.parameters["seed"])
        size = (request.parameters["height"] or 72, request.parameters["width"] or 88, 3)
        document = {**request.document(), "files": files}
        image = encode_png(random.integers(0, 256, size, np.uint8), document)
        maps = {name: image for name in request.inputs if wire.map_name(name)}
        origins: dict[str, wire.Origin] = {name.removeprefix("map:"): "followed" for name in maps}
        notes = ("the transparency of swatch is ignored",)
        return Outcome({"image": image, **maps}, {"seam_x": 1.0125}, notes, origins)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubRunner]:
    class Stub(StubRunner):
        pass

    monkeypatch.setattr(ad_service.worker.runner, "Runner", Stub)
    return Stub


@pytest.fixture
def swatch(tmp_path: Path) -> Path:
    path = tmp_path / "bricks.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., int]:
    """Runs a command with a temporary data folder; returns the exit code."""

    def calling(*arguments: object) -> int:
        try:
            return main([*map(str, arguments), "--data-dir", str(tmp_path / "data")])
        except SystemExit as end:
            return int(end.code or 0)

    return calling


def one_line(text: str) -> str:
    assert len(text.strip().splitlines()) == 1, text
    return text.strip()


# ---------------------------------------------------------------------------------------------- synthesize


def test_synthesize_writes_the_picture_and_prints_its_path_and_metrics(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out.png"
    assert call("synthesize", swatch, "--out", out, "--size", "128x64") == 0
    with Image.open(out) as image:
        assert image.size == (128, 64)
    out_text, err_text = capsys.readouterr()
    lines = out_text.splitlines()
    assert lines[0] == str(out)
    assert lines[1].startswith("  128x64 in ") and lines[1].endswith(" s")
    assert lines[2:] == ["  seam x: 1.012", "  note: the transparency of swatch is ignored"]
    assert err_text == ""


def test_every_parameter_is_a_flag(stub: type[StubRunner], call: Callable[..., int], swatch: Path) -> None:
    values = {"int": 64, "float": 0.5, "str": "mine", "crop": "0,0,32,32", "corners": ""}
    documents = [p.document() for p in wire.SYNTHESIZE.parameters]
    given = {d.name: d.choices[-1] if d.choices else values[d.kind] for d in documents}
    given |= {"steps": 9, "iterations": 3}
    flags = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), value)]
    assert call("synthesize", swatch, "--out", swatch.with_name("o.png"), *flags) == 0
    assert stub.request.parameters == given


def test_a_negative_automatic_value_can_be_given(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path
) -> None:
    assert call("synthesize", swatch, "--out", swatch.with_name("o.png"), "--content-weight", "-1") == 0
    assert stub.request.parameters["content_weight"] == -1.0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_result_has_the_permissions_of_an_ordinary_file(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path
) -> None:
    out = swatch.with_name("o.png")
    assert call("synthesize", swatch, "--out", out, "--size", "64") == 0
    assert out.stat().st_mode == swatch.stat().st_mode


def test_one_number_is_a_square_size(stub: type[StubRunner], call: Callable[..., int], swatch: Path) -> None:
    assert call("synthesize", swatch, "--out", swatch.with_name("o.png"), "--size", "256") == 0
    assert (stub.request.parameters["width"], stub.request.parameters["height"]) == (256, 256)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--width", "100"], ["--width", "100", "multiple of 8"]),
        (["--size", "100x64"], ["width", "100", "multiple of 8"]),
        (["--size", "big"], ["--size", "'big'"]),
        (["--size", "64x64", "--width", "64"], ["--size", "--width"]),
        (["--seed", "many"], ["--seed", "'many'"]),
        (["--tile", "yx"], ["--tile", "'yx'", "none, x, y, xy"]),
        (["--regions", "{swatch}"], ["regions", "layout"]),
        (["--regions", "{tmp}/no.png", "--layout", "{swatch}"], ["no.png", "regions", "No such file"]),
        (["--out", "{tmp}/o.jpg"], ["--out", "o.jpg", ".png"]),
        (["--out", "{tmp}/no/o.png"], ["--out", "no"]),
        (["--out", "{tmp}/folder.png"], ["--out", "folder.png", "directory"]),
        (["--out", "{swatch}"], ["--out", "bricks.png", "overwritten"]),
        (["--seed", "2147483648"], ["--seed", "2147483648", "2147483647"]),
        (["--colour", "red"], ["--colour"]),
    ],
)
def test_bad_input_is_one_line_with_the_argument_and_its_value(
    stub: type[StubRunner],
    call: Callable[..., int],
    swatch: Path,
    capsys: Capture,
    arguments: list[str],
    words: list[str],
) -> None:
    (swatch.parent / "folder.png").mkdir()
    before = swatch.read_bytes()
    filled = [argument.format(swatch=swatch, tmp=swatch.parent) for argument in arguments]
    assert call("synthesize", swatch, "--out", swatch.with_name("o.png"), *filled) == 2
    line = one_line(capsys.readouterr().err)
    for word in words:
        assert word in line
    assert swatch.read_bytes() == before
    assert not hasattr(stub, "request"), "the job ran before its input was checked"


def test_a_missing_swatch_is_bad_input(call: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    assert call("synthesize", tmp_path / "no.png", "--out", tmp_path / "o.png") == 2
    line = one_line(capsys.readouterr().err)
    assert "swatch" in line and "no.png" in line and "No such file" in line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WireError("invalid-image", "swatch is 1x1 pixels"), 2),
        (WireError("model-missing", "there is no model 'x'"), 2),
        (WireError("nan-output", "the model returned NaN"), 1),
        (WireError("out-of-memory", "tried to allocate 20 GiB"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_exit_code_depends_on_the_error(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, capsys: Capture, error: BaseException, code: int
) -> None:
    stub.error = error
    out = swatch.with_name("o.png")
    assert call("synthesize", swatch, "--out", out) == code
    line = one_line(capsys.readouterr().err)
    if isinstance(error, WireError):
        assert error.detail in line and error.type.remedy in line
    assert not out.exists()


def test_a_result_that_cannot_be_written_is_kept_in_the_store_and_the_old_file_stays(
    stub: type[StubRunner],
    call: Callable[..., int],
    swatch: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(source: Path, target: Path) -> Path:
        if target.name == "o.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(source, target)

    rename = Path.replace
    out = swatch.with_name("o.png")
    out.write_bytes(b"an older result")
    monkeypatch.setattr(Path, "replace", full)
    assert call("synthesize", swatch, "--out", out, "--size", "64") == 1
    line = one_line(capsys.readouterr().err)
    assert "o.png cannot be written: No space left on device" in line
    assert job_document("kept", Path(line.rsplit(" ", 1)[1]).read_bytes())["kind"] == "synthesize"
    assert out.read_bytes() == b"an older result"
    assert {path.name for path in tmp_path.iterdir()} == {"bricks.png", "o.png", "data"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_swatch_with_a_name_that_is_not_utf8_is_accepted(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path
) -> None:
    odd = swatch.rename(os.fsdecode(os.fsencode(swatch.parent) + b"/br\xffcks.png"))
    out = swatch.with_name("o.png")
    assert call("synthesize", "--out", out, "--size", "64", odd) == 0
    assert job_document("o.png", out.read_bytes())["files"] == {"swatch": "br?cks.png"}


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    models = tmp_path / "models" / "größe"
    models.mkdir(parents=True)
    command = [sys.executable, "-m", "ad_service", "models", "list", "--data-dir", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "gr\\xf6\\xdfe" in answer.stdout


# ---------------------------------------------------------------------------------------------- restyle


def test_suggest_regions_writes_a_label_map_and_has_no_size(
    call: Callable[..., int], swatch: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "map.png"
    assert call("suggest-regions", swatch, "--parts", "3", "--out", out) == 0
    with Image.open(out) as found, Image.open(swatch) as picture:
        assert found.size == picture.size
        assert len(found.getcolors()) <= 3
    assert call("suggest-regions", swatch, "--size", "64", "--out", out) == 2
    assert "--size" in capsys.readouterr().err


def test_prepare_writes_the_swatch_as_a_job_uses_it(call: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    photograph, out = tmp_path / "wall.png", tmp_path / "swatch.png"
    Image.fromarray(tiles(300, 400, 40)).save(photograph)
    assert call("prepare", photograph, "--corners", "50,40 350,60 340,260 60,250", "--fit", "--out", out) == 0
    with Image.open(out) as image:
        assert 280 < image.width < 320 and 180 < image.height < 260
    crop = ("--crop", "100,50,200,160", "--real-width", "2", "--scale", "0.5", "--even-light", "1")
    assert call("prepare", photograph, *crop, "--out", out) == 0
    with Image.open(out) as image:
        assert image.size == (100, 80)
        assert image.info["dpi"][0] == pytest.approx(50 * 0.0254, rel=0.01)
    assert "Shows 10.2 m at 50 px/m" in capsys.readouterr().out
    assert call("prepare", photograph, "--fit", "--scale", "1", "--out", out) == 2
    assert "--fit is given together with --scale" in capsys.readouterr().err


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "wall.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (72, 88, 3), np.uint8)).save(path)
    return path


def test_restyle_takes_the_content_first_and_prints_the_size_of_the_result(
    stub: type[StubRunner], call: Callable[..., int], content: Path, swatch: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out.png"
    assert call("restyle", content, swatch, "--out", out, "--method", "preview") == 0
    shas = {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in (("content", content), ("swatch", swatch))
    }
    assert dict(stub.request.inputs) == shas
    assert stub.request.parameters["method"] == "preview"
    assert capsys.readouterr().out.splitlines()[1].startswith("  88x72 in ")


def test_a_result_of_restyle_runs_again(
    stub: type[StubRunner], call: Callable[..., int], content: Path, swatch: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first.png"
    call("restyle", content, swatch, "--out", first, "--seed", "7")
    assert call("run", first, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "first.png").read_bytes() == first.read_bytes()
    assert stub.request.kind == "restyle"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{content}", "{tmp}/no.png"], ["swatch", "no.png", "No such file"]),
        (["{tmp}/no.png", "{swatch}"], ["content", "no.png", "No such file"]),
        (["{content}"], ["SWATCH"]),
        (["{content}", "{swatch}", "--start", "quilt"], ["--start"]),
        (["{content}", "{swatch}", "--width", "8"], ["--width", "8", "64"]),
        (["{content}", "{swatch}", "--method", "magic"], ["--method", "'magic'", "preview"]),
    ],
)
def test_bad_input_of_restyle_is_one_line_with_the_argument_and_its_value(
    stub: type[StubRunner],
    call: Callable[..., int],
    content: Path,
    swatch: Path,
    capsys: Capture,
    arguments: list[str],
    words: list[str],
) -> None:
    filled = [argument.format(content=content, swatch=swatch, tmp=swatch.parent) for argument in arguments]
    assert call("restyle", *filled, "--out", swatch.with_name("o.png")) == 2
    line = one_line(capsys.readouterr().err)
    for word in words:
        assert word in line


# ---------------------------------------------------------------------------------------------- maps


def test_maps_are_written_beside_the_result_and_run_again(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path, capsys: Capture
) -> None:
    normal, height = tmp_path / "n.png", tmp_path / "h.png"
    for path, value in ((normal, 128), (height, 90)):
        Image.fromarray(np.full((40, 48, 3), value, np.uint8)).save(path)
    maps = ("--map", f"normal={normal}", "--map", f"height={height}")
    assert call("synthesize", swatch, *maps, "--out", tmp_path / "o.png", "--size", "64") == 0
    printed = capsys.readouterr().out
    assert "maps: normal followed, height followed" in printed and str(tmp_path / "o-normal.png") in printed
    assert call("run", tmp_path / "o-height.png", "--out", tmp_path / "again") == 0
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert names == {"o-height.png", "o-height-normal.png", "o-height-height.png"}
    assert set(stub.request.inputs) == {"swatch", "map:normal", "map:height"}


def test_a_map_that_would_be_overwritten_is_bad_input(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path, capsys: Capture
) -> None:
    normal = tmp_path / "o-normal.png"
    Image.fromarray(np.full((40, 48, 3), 128, np.uint8)).save(normal)
    assert call("synthesize", swatch, "--map", f"normal={normal}", "--out", tmp_path / "o.png", "--size", "64") == 2
    assert "o-normal.png is an input and would be overwritten" in one_line(capsys.readouterr().err)


# ---------------------------------------------------------------------------------------------- run


def test_a_result_runs_again_next_to_its_swatch(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path
) -> None:
    first = tmp_path / "wall.png"
    call("synthesize", swatch, "--out", first, "--size", "64", "--seed", "7")
    assert call("run", first, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "wall.png").read_bytes() == first.read_bytes()


def test_a_result_is_not_overwritten_by_running_it_again(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path
) -> None:
    first = tmp_path / "wall.png"
    call("synthesize", swatch, "--out", first, "--size", "64")
    assert call("run", first, "--out", tmp_path) == 0
    assert (tmp_path / "wall-again.png").read_bytes() == first.read_bytes()


def test_a_result_runs_again_after_its_swatch_was_deleted(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path
) -> None:
    first = tmp_path / "wall.png"
    call("synthesize", swatch, "--out", first, "--size", "64")
    swatch.unlink()
    assert call("run", first, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "wall.png").read_bytes() == first.read_bytes()


def test_the_error_for_a_missing_or_changed_swatch_names_it(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path, capsys: Capture
) -> None:
    first = tmp_path / "wall.png"
    call("synthesize", swatch, "--out", first, "--size", "64")
    capsys.readouterr()
    BlobStore(tmp_path / "data" / "blobs").remove(hashlib.sha256(swatch.read_bytes()).hexdigest())
    swatch.write_bytes(swatch.read_bytes() + b"x")
    assert call("run", first, "--out", tmp_path / "again") == 2
    assert "bricks.png" in (line := one_line(capsys.readouterr().err)) and "has changed" in line
    swatch.unlink()
    assert call("run", first, "--out", tmp_path / "again") == 2
    assert "swatch (bricks.png)" in one_line(capsys.readouterr().err)


def test_a_job_file_can_name_its_inputs_by_path(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "jobs" / "wall.json"
    (job.parent / "pictures").mkdir(parents=True)
    inputs = {"swatch": f"pictures/{swatch.name}"}
    swatch = swatch.rename(job.parent / inputs["swatch"])
    parameters = {"width": 64, "height": 72, "seed": 3}
    job.write_text(json.dumps({"kind": "synthesize", "parameters": parameters, "inputs": inputs}))
    monkeypatch.chdir("/")
    assert call("run", job, "--out", tmp_path / "out") == 0
    document = job_document("wall.png", (tmp_path / "out" / "wall.png").read_bytes())
    assert document["inputs"] == {"swatch": hashlib.sha256(swatch.read_bytes()).hexdigest()}
    assert document["files"] == {"swatch": "bricks.png"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["job.json", "JSON"]),
        ("[]", ["job.json", "list"]),
        ("{}", ["kind"]),
        ('{"kind": "synthesize", "inputs": {"swatch": "no.png"}}', ["swatch", "no.png"]),
        ('{"kind": "synthesize", "inputs": {"swatch": 5}}', ["swatch", "5"]),
        ('{"kind": "synthesize", "inputs": {"swatch": "a\\u0000b"}}', ["swatch", "a\\x00b"]),
        ('{"kind": "synthesize", "inputs": {"swatch": "\\ud800"}}', ["swatch", "\\ud800"]),
        ('{"kind": "synthesize", "inputs": {"swatch": "%s"}}' % ("0" * 64), ["swatch", "0000", "put it there"]),
        ('{"kind": "synthesize", "inputs": [1]}', ["inputs"]),
        ('{"wire": 99, "kind": "synthesize"}', ["99"]),
    ],
)
def test_a_bad_job_file_is_one_line(
    call: Callable[..., int], tmp_path: Path, capsys: Capture, text: str, words: list[str]
) -> None:
    job = tmp_path / "job.json"
    job.write_text(text)
    assert call("run", job, "--out", tmp_path) == 2
    line = one_line(capsys.readouterr().err)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("/etc/passwd", "outside of"),
        ("/dev/zero", "outside of"),
        ("../secret.png", "outside of"),
        ("link.png", "outside of"),
        ("C:\\Users\\a.png", "outside of"),
        ("\\\\host\\share\\a.png", "outside of"),
        ("pipe", "not an ordinary file"),
        (".", "not an ordinary file"),
        ("huge.png", "is the limit"),
    ],
)
def test_a_job_file_reads_ordinary_files_of_its_own_folder_only(
    call: Callable[..., int], tmp_path: Path, capsys: Capture, named: str, words: str
) -> None:
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "pipe")
    with (folder / "huge.png").open("wb") as huge:
        huge.truncate(wire.MAX_BLOB_BYTES + 1)
    (folder / "job.json").write_text(json.dumps({"kind": "synthesize", "inputs": {"swatch": named}}))
    assert call("run", folder / "job.json", "--out", tmp_path) == 2
    assert words in one_line(capsys.readouterr().err)


def test_jobs_of_a_running_service_are_listed_shown_canceled_and_deleted(
    start: Callable[..., LiveService], call: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    live = start("sleeps", data_dir=tmp_path / "data")
    running, waiting = live.submit(), live.submit(seed=1)
    live.wait_for_state(running, "running")
    assert call("jobs", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [waiting, running]
    assert "queued" in lines[0] and "running" in lines[1] and "synthesize" in lines[0]
    assert call("jobs", "delete", waiting) == 1
    assert "is queued" in one_line(capsys.readouterr().err)
    assert call("jobs", "cancel", waiting) == 0
    assert one_line(capsys.readouterr().out) == f"{waiting}: canceled"
    assert call("jobs", "show", waiting) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "canceled"
    assert call("jobs", "delete", waiting) == 0
    capsys.readouterr()
    assert call("jobs", "show", waiting) == 1
    assert waiting in one_line(capsys.readouterr().err)
    assert call("storage", "--prune") == 0
    assert capsys.readouterr().out.startswith("pictures  0.00 GB of at most ")


def test_jobs_of_a_stopped_service_are_listed_and_deleted(
    start: Callable[..., LiveService], call: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    live = start("echoes", data_dir=tmp_path / "data")
    job = live.submit()
    live.wait_for_state(job, "succeeded")
    live.stop()
    assert call("jobs", "list", "--limit", "5") == 0
    line = one_line(capsys.readouterr().out)
    assert job in line and "succeeded" in line and line.endswith(" s")
    assert call("jobs", "delete", job) == 0
    assert call("storage") == 0
    assert call("jobs", "list") == 0
    assert job not in capsys.readouterr().out.replace(f"{job}: deleted", "")


def test_tokens_are_made_listed_and_revoked(call: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    assert call("tokens", "add", "anna", "--max-queue", "5", "--max-pixels", "16", "--max-disk", "2.5") == 0
    token = one_line(capsys.readouterr().out)
    assert call("tokens", "add", "prometheus", "--metrics") == 0
    capsys.readouterr()
    assert call("tokens", "list") == 0
    text = capsys.readouterr().out
    assert "5 waiting jobs, 16 megapixels, 2.5 GB" in text and "metrics only" in text and token not in text
    assert call("tokens", "add", "anna") == 2
    assert "revoke it first" in one_line(capsys.readouterr().err)
    assert call("tokens", "revoke", "anna") == 0
    assert one_line(capsys.readouterr().out) == "anna: revoked"
    assert call("tokens", "revoke", "anna") == 2
    assert "prometheus has one" in one_line(capsys.readouterr().err)


def test_artists_tokens_allow_a_public_host(start: Callable[..., LiveService], tmp_path: Path) -> None:
    Tokens(tmp_path).add("anna")
    (tmp_path / "data").mkdir()
    (tmp_path / "tokens.json").rename(tmp_path / "data" / "tokens.json")
    live = start("echoes", "--host", "0.0.0.0", data_dir=tmp_path / "data")
    assert live.get("/v1/health").status_code == 200


def test_a_stopped_service_is_pruned_to_the_budget_that_it_had(
    start: Callable[..., LiveService], call: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    start("echoes", "--storage-limit", "3", data_dir=tmp_path / "data").stop()
    assert call("storage", "--prune") == 0
    assert capsys.readouterr().out.startswith("pictures  0.00 GB of at most 3.00 GB")


def test_a_service_that_does_not_answer_in_time_is_an_error(
    call: Callable[..., int], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        runtime = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "token": "t"}
        monkeypatch.setattr(record, "read_runtime", lambda _folder: runtime)
        assert call("jobs", "list") == 1
    assert "does not respond" in one_line(capsys.readouterr().err)


def test_a_data_folder_that_does_not_exist_is_reported(call: Callable[..., int], capsys: Capture) -> None:
    assert call("jobs", "list") == 2
    assert "there is no data folder" in one_line(capsys.readouterr().err)


def test_a_picture_that_is_not_a_result_cannot_be_run(call: Callable[..., int], swatch: Path, capsys: Capture) -> None:
    assert call("run", swatch, "--out", swatch.parent) == 2
    assert "bricks.png contains no job" in one_line(capsys.readouterr().err)


# ---------------------------------------------------------------------------------------------- the rest


def test_a_public_host_requires_a_token_file(call: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    assert call("serve", "--host", "0.0.0.0") == 2
    assert "--token-file" in one_line(capsys.readouterr().err)
    token = tmp_path / "token"
    token.write_text("short")
    assert call("serve", "--host", "0.0.0.0", "--token-file", token) == 2
    assert "16" in one_line(capsys.readouterr().err)


def test_the_token_is_read_from_the_token_file(start: Callable[..., LiveService], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-my-own-choice\n")
    token.chmod(0o600)
    live = start("echoes", "--token-file", str(token))
    assert live.token == "a-token-of-my-own-choice"
    assert live.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    ("data", "mode", "words"),
    [
        (b"a" * 32, 0o600, "easy to guess"),
        (b"passwordpassword", 0o600, "easy to guess"),
        ("gaehrpoßüöä-9275".encode(), 0o600, "printable ASCII"),
        (b"\xef\xbf\xbd" * 20, 0o600, "printable ASCII"),
        (b"two words of-9275-kq", 0o600, "no spaces"),
        (b"qT8-xLw2-bV5z-nK0r", 0o644, "chmod 600"),
    ],
)
def test_a_token_file_that_protects_nothing_is_rejected(
    call: Callable[..., int], tmp_path: Path, capsys: Capture, data: bytes, mode: int, words: str
) -> None:
    token = tmp_path / "token"
    token.write_bytes(data)
    token.chmod(mode)
    assert call("serve", "--token-file", token) == 2
    line = one_line(capsys.readouterr().err)
    assert words in line and str(token) in line


def test_a_host_beyond_this_machine_without_tls_is_warned_about(
    start: Callable[..., LiveService], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("qT8-xLw2-bV5z-nK0r")
    token.chmod(0o600)
    live = start("echoes", "--host", "0.0.0.0", "--token-file", str(token))
    text = (live.data_dir / "serve.out").read_text()
    assert "warning: other machines can reach --host 0.0.0.0" in text and "--tls-cert" in text
    assert live.url.startswith("http://127.0.0.1:"), "programs on this machine cannot connect to 0.0.0.0 everywhere"


def test_a_file_that_is_not_a_certificate_is_rejected(
    call: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("not a certificate")
    assert call("serve", "--tls-cert", file) == 2
    assert str(file) in one_line(capsys.readouterr().err)
    assert call("serve", "--tls-key", file) == 2
    assert "--tls-cert" in one_line(capsys.readouterr().err)


def test_a_port_in_use_is_reported(service: LiveService, call: Callable[..., int], capsys: Capture) -> None:
    assert call("serve", "--port", service.url.rsplit(":", 1)[1]) == 1
    assert "in use" in (line := one_line(capsys.readouterr().err)) and "--port" in line


@pytest.mark.parametrize("port", ["99999", "-1", "x"])
def test_the_error_for_an_invalid_port_shows_it(call: Callable[..., int], capsys: Capture, port: str) -> None:
    assert call("serve", "--port", port) == 2
    assert "--port" in (line := one_line(capsys.readouterr().err)) and repr(port) in line


@pytest.mark.parametrize("gpus", ["", "0,0", "cuda:0", "0,", "0;1"])
def test_the_error_for_an_impossible_list_of_gpus_shows_it(
    call: Callable[..., int], capsys: Capture, gpus: str
) -> None:
    assert call("serve", "--gpus", gpus) == 2
    assert "--gpus" in (line := one_line(capsys.readouterr().err)) and repr(gpus) in line


def test_the_error_for_an_impossible_data_folder_names_the_flag(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("no folder")
    assert main(["serve", "--data-dir", str(tmp_path / "file" / "data")]) == 1
    assert "data folder" in (line := one_line(capsys.readouterr().err)) and "--data-dir" in line


def test_an_unknown_model_cannot_be_checked(call: Callable[..., int], capsys: Capture) -> None:
    assert call("models", "check", "nobody") == 2
    assert "'nobody'" in one_line(capsys.readouterr().err)


def test_models_list_shows_unusable_models(call: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    (models / "broken.safetensors").write_bytes(b"no header")
    assert call("models", "list") == 0
    assert any(line.startswith("broken ") and "cannot be used" in line for line in capsys.readouterr().out.splitlines())


def test_doctor_prints_a_line_for_each_check_and_a_remedy_for_each_problem(
    call: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    (models / "broken.safetensors").write_bytes(b"no header")
    assert call("doctor") == 1
    lines = capsys.readouterr().out.splitlines()
    heads = [line[8:].split(":")[0] for line in lines if not line.startswith("        ")]
    assert heads == ["python", "torch", "device", "data folder", "disk", "models", "service"]
    problems = [i for i, line in enumerate(lines) if line.startswith("problem")]
    assert problems and all(lines[i + 1].startswith("        ") for i in problems)
    assert "broken" in "".join(lines)


@pytest.mark.parametrize(
    ("runtime", "locked", "words"),
    [
        ("{half", True, ["ok", "not running"]),
        ('{"url": "http://127.0.0.1:9"}', False, ["ok", "not running", "without removing runtime.json"]),
        ('{"url": "http://127.0.0.1:9"}', True, ["problem", "http://127.0.0.1:9", "does not respond"]),
        ('{"url": 5}', True, ["problem", "5", "does not respond"]),
    ],
)
def test_doctor_recognizes_the_runtime_file_of_a_killed_service(
    call: Callable[..., int], tmp_path: Path, capsys: Capture, runtime: str, locked: bool, words: list[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "runtime.json").write_text(runtime)
    with FileLock(tmp_path / "data" / "service.lock") if locked else nullcontext():
        call("doctor")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "service:" in line]
    for word in words:
        assert word in line


def test_doctor_finds_a_running_service(service: LiveService, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    main(["doctor", "--data-dir", str(service.data_dir)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "service:" in line]
    assert line.startswith("ok") and service.url in line


def test_a_job_runs_without_a_data_folder(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("no folder")
    job = tmp_path / "wall.json"
    job.write_text(json.dumps({"kind": "synthesize", "inputs": {"swatch": "bricks.png"}}))
    assert call("run", job, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "wall.png").exists()


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ad_service", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_the_installed_script_and_those_of_older_installations_start_the_same_command_line() -> None:
    declared = re.search(r'^ad-service = "([\w.]+):(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    for module, function in (declared.groups(), ("ad_service.cli", "main")):
        script = f"import sys; from {module} import {function}; sys.exit({function}())"
        answer = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, text=True, cwd=ROOT)
        assert (answer.returncode, answer.stdout.strip()) == (0, f"ad-service {ad_service.__version__}"), answer.stderr


def test_the_package_runs_as_a_module() -> None:
    done = run_module("--version")
    assert (done.returncode, done.stdout) == (0, f"ad-service {ad_service.__version__}\n")


COMMANDS = ("serve", "synthesize", "restyle", "run", "models", "models fetch", "doctor", "bench")


@pytest.mark.parametrize("command", [command.split() for command in COMMANDS], ids=COMMANDS)
def test_every_command_has_help_that_needs_no_torch(command: list[str]) -> None:
    done = run_module(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: ad-service {' '.join(command)}")


def test_no_command_is_bad_input() -> None:
    done = run_module()
    assert done.returncode == 2
    assert "COMMAND" in one_line(done.stderr)


def test_a_progress_bar_is_shown_on_a_terminal_only(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        monkeypatch.setattr(sys, "stderr", stream)
        assert call("synthesize", swatch, "--out", swatch.with_name("o.png"), "--size", "64") == 0
    assert "Step 1 of 2" in terminal.getvalue() and "50%" in terminal.getvalue()
    assert pipe.getvalue() == ""


def test_estimate_writes_a_folder_of_the_maps_that_are_not_given(
    call: Callable[..., int], swatch: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "maps"
    assert call("estimate", swatch, "--out", out) == 0
    assert {p.name for p in out.iterdir()} == {"albedo.png", "normal_gl.png", "roughness.png", "height.png"}
    again = tmp_path / "rest"
    assert call("estimate", swatch, "--map", f"height={out / 'height.png'}", "--out", again) == 0
    assert {p.name for p in again.iterdir()} == {"albedo.png", "normal_gl.png", "roughness.png"}
    assert "maps: height given" in capsys.readouterr().out
    assert call("estimate", out / "albedo.png", "--out", out) == 2
    assert "would be overwritten" in capsys.readouterr().err
