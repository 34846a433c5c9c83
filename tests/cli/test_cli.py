"""The command line: what it writes, says and returns, and that bad input is one line that tells what and where."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ad_service
import ad_service.worker.runner
from ad_service.cli.main import main
from ad_service.storage.blobs import Store
from ad_service.worker.engine import Outcome, Read, Step, Steps
from ad_service.worker.image_files import encode_png, job_document
from blender_addon import wire
from blender_addon.wire import JobRequest, WireError
from tests.support.live_service import ROOT, LiveService

Say = pytest.CaptureFixture[str]


class StubRunner:
    """Gives noise of the size asked for; `error` is raised in the middle."""

    asked: JobRequest
    error: BaseException | None = None

    def __init__(self, data_dir: Path, *, allow_paths: bool) -> None:
        assert allow_paths

    def run(self, request: JobRequest, read: Read, files: dict[str, str]) -> Steps:
        type(self).asked = request
        assert all(hashlib.sha256(read(sha)).hexdigest() == sha for sha in request.inputs.values())
        yield Step(0.5, "Step 1 of 2")
        if self.error is not None:
            raise self.error
        random = np.random.default_rng(request.parameters["seed"])
        size = (request.parameters["height"] or 72, request.parameters["width"] or 88, 3)
        document = {**request.document(), "files": files}
        image = encode_png(random.integers(0, 256, size, np.uint8), document)
        return Outcome({"image": image}, {"seam_x": 1.0125}, ("the transparency of swatch is ignored",))


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
    """Calls the command line with a data folder of the test's own; returns the exit code."""

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


def test_synthesize_writes_the_picture_and_says_where_and_how_good(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path, capsys: Say
) -> None:
    out = tmp_path / "out.png"
    assert call("synthesize", swatch, "--out", out, "--size", "128x64") == 0
    with Image.open(out) as image:
        assert image.size == (128, 64)
    said, complained = capsys.readouterr()
    lines = said.splitlines()
    assert lines[0] == str(out)
    assert lines[1].startswith("  128x64 in ") and lines[1].endswith(" s")
    assert lines[2:] == ["  seam x: 1.012", "  note: the transparency of swatch is ignored"]
    assert complained == ""


def test_every_parameter_of_the_wire_is_a_flag(stub: type[StubRunner], call: Callable[..., int], swatch: Path) -> None:
    values = {"int": 64, "float": 0.5, "str": "mine"}
    documents = [p.document() for p in wire.SYNTHESIZE.parameters]
    given = {d.name: d.choices[-1] if d.choices else values[d.kind] for d in documents}
    given |= {"steps": 9, "iterations": 3}
    flags = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), value)]
    assert call("synthesize", swatch, "--out", swatch.with_name("o.png"), *flags) == 0
    assert stub.asked.parameters == given


def test_a_negative_value_that_means_automatic_can_be_given(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path
) -> None:
    assert call("synthesize", swatch, "--out", swatch.with_name("o.png"), "--content-weight", "-1") == 0
    assert stub.asked.parameters["content_weight"] == -1.0


def test_one_number_is_a_square_size(stub: type[StubRunner], call: Callable[..., int], swatch: Path) -> None:
    assert call("synthesize", swatch, "--out", swatch.with_name("o.png"), "--size", "256") == 0
    assert (stub.asked.parameters["width"], stub.asked.parameters["height"]) == (256, 256)


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
def test_bad_input_is_one_line_that_says_what_and_where(
    stub: type[StubRunner],
    call: Callable[..., int],
    swatch: Path,
    capsys: Say,
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
    assert not hasattr(stub, "asked"), "work was done before the input was found to be bad"


def test_a_swatch_that_is_not_there_is_bad_input(call: Callable[..., int], tmp_path: Path, capsys: Say) -> None:
    assert call("synthesize", tmp_path / "no.png", "--out", tmp_path / "o.png") == 2
    line = one_line(capsys.readouterr().err)
    assert "swatch" in line and "no.png" in line and "No such file" in line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WireError("invalid-image", "swatch is 1x1 pixels"), 2),
        (WireError("model-missing", "there is no model 'x'"), 2),
        (WireError("nan-output", "the network gave NaN"), 1),
        (WireError("out-of-memory", "tried to allocate 20 GiB"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_how_a_job_ends_is_the_exit_code(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, capsys: Say, error: BaseException, code: int
) -> None:
    stub.error = error
    out = swatch.with_name("o.png")
    assert call("synthesize", swatch, "--out", out) == code
    line = one_line(capsys.readouterr().err)
    if isinstance(error, WireError):
        assert error.detail in line and error.type.remedy in line
    assert not out.exists()


def test_a_result_that_cannot_be_written_is_kept_and_so_is_what_was_there(
    stub: type[StubRunner],
    call: Callable[..., int],
    swatch: Path,
    tmp_path: Path,
    capsys: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    out = swatch.with_name("o.png")
    out.write_bytes(b"an older result")
    monkeypatch.setattr(Path, "write_bytes", full)
    assert call("synthesize", swatch, "--out", out, "--size", "64") == 1
    line = one_line(capsys.readouterr().err)
    assert "o.png cannot be written: No space left on device" in line
    assert job_document("kept", Path(line.rsplit(" ", 1)[1]).read_bytes())["kind"] == "synthesize"
    assert out.read_bytes() == b"an older result"
    assert {path.name for path in tmp_path.iterdir()} == {"bricks.png", "o.png", "data"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_swatch_whose_name_is_no_text_is_taken(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path
) -> None:
    odd = swatch.rename(os.fsdecode(os.fsencode(swatch.parent) + b"/br\xffcks.png"))
    out = swatch.with_name("o.png")
    assert call("synthesize", "--out", out, "--size", "64", odd) == 0
    assert job_document("o.png", out.read_bytes())["files"] == {"swatch": "br?cks.png"}


def test_a_name_that_the_terminal_has_no_letters_for_is_told_all_the_same(tmp_path: Path) -> None:
    models = tmp_path / "models" / "größe"
    models.mkdir(parents=True)
    command = [sys.executable, "-m", "ad_service", "models", "list", "--data-dir", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "gr\\xf6\\xdfe" in answer.stdout


# ---------------------------------------------------------------------------------------------- restyle


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "wall.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (72, 88, 3), np.uint8)).save(path)
    return path


def test_restyle_takes_the_content_first_and_tells_the_size_that_came_out(
    stub: type[StubRunner], call: Callable[..., int], content: Path, swatch: Path, tmp_path: Path, capsys: Say
) -> None:
    out = tmp_path / "out.png"
    assert call("restyle", content, swatch, "--out", out, "--method", "preview") == 0
    shas = {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in (("content", content), ("swatch", swatch))
    }
    assert dict(stub.asked.inputs) == shas
    assert stub.asked.parameters["method"] == "preview"
    assert capsys.readouterr().out.splitlines()[1].startswith("  88x72 in ")


def test_what_restyle_made_runs_again(
    stub: type[StubRunner], call: Callable[..., int], content: Path, swatch: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first.png"
    call("restyle", content, swatch, "--out", first, "--seed", "7")
    assert call("run", first, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "first.png").read_bytes() == first.read_bytes()
    assert stub.asked.kind == "restyle"


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
def test_bad_input_of_restyle_is_one_line_that_says_what_and_where(
    stub: type[StubRunner],
    call: Callable[..., int],
    content: Path,
    swatch: Path,
    capsys: Say,
    arguments: list[str],
    words: list[str],
) -> None:
    filled = [argument.format(content=content, swatch=swatch, tmp=swatch.parent) for argument in arguments]
    assert call("restyle", *filled, "--out", swatch.with_name("o.png")) == 2
    line = one_line(capsys.readouterr().err)
    for word in words:
        assert word in line


# ---------------------------------------------------------------------------------------------- run


def test_a_result_runs_again_with_its_swatch_beside_it(
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


def test_a_result_runs_again_when_its_swatch_has_gone_since(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path
) -> None:
    first = tmp_path / "wall.png"
    call("synthesize", swatch, "--out", first, "--size", "64")
    swatch.unlink()
    assert call("run", first, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "wall.png").read_bytes() == first.read_bytes()


def test_a_swatch_that_is_gone_or_changed_is_named(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path, capsys: Say
) -> None:
    first = tmp_path / "wall.png"
    call("synthesize", swatch, "--out", first, "--size", "64")
    capsys.readouterr()
    Store(tmp_path / "data" / "blobs").remove(hashlib.sha256(swatch.read_bytes()).hexdigest())
    swatch.write_bytes(swatch.read_bytes() + b"x")
    assert call("run", first, "--out", tmp_path / "again") == 2
    assert "bricks.png" in (line := one_line(capsys.readouterr().err)) and "changed" in line
    swatch.unlink()
    assert call("run", first, "--out", tmp_path / "again") == 2
    assert "swatch (bricks.png)" in one_line(capsys.readouterr().err)


def test_a_job_file_names_its_pictures_by_path(
    stub: type[StubRunner], call: Callable[..., int], swatch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "jobs" / "wall.json"
    job.parent.mkdir()
    parameters = {"width": 64, "height": 72, "seed": 3}
    job.write_text(json.dumps({"kind": "synthesize", "parameters": parameters, "inputs": {"swatch": "../bricks.png"}}))
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
    call: Callable[..., int], tmp_path: Path, capsys: Say, text: str, words: list[str]
) -> None:
    job = tmp_path / "job.json"
    job.write_text(text)
    assert call("run", job, "--out", tmp_path) == 2
    line = one_line(capsys.readouterr().err)
    for word in words:
        assert word in line


def test_a_picture_that_is_no_result_cannot_be_run(call: Callable[..., int], swatch: Path, capsys: Say) -> None:
    assert call("run", swatch, "--out", swatch.parent) == 2
    assert "bricks.png carries no job" in one_line(capsys.readouterr().err)


# ---------------------------------------------------------------------------------------------- the rest


def test_serving_other_machines_needs_a_token_file(call: Callable[..., int], tmp_path: Path, capsys: Say) -> None:
    assert call("serve", "--host", "0.0.0.0") == 2
    assert "--token-file" in one_line(capsys.readouterr().err)
    token = tmp_path / "token"
    token.write_text("short")
    assert call("serve", "--host", "0.0.0.0", "--token-file", token) == 2
    assert "16" in one_line(capsys.readouterr().err)


def test_the_token_of_a_file_is_the_token(start: Callable[..., LiveService], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-my-own-choice\n")
    live = start("echoes", "--token-file", str(token))
    assert live.token == "a-token-of-my-own-choice"
    assert live.get("/v1/jobs").status_code == 200


def test_a_port_that_is_taken_is_told(service: LiveService, call: Callable[..., int], capsys: Say) -> None:
    assert call("serve", "--port", service.url.rsplit(":", 1)[1]) == 1
    assert "in use" in (line := one_line(capsys.readouterr().err)) and "--port" in line


@pytest.mark.parametrize("port", ["99999", "-1", "x"])
def test_a_port_that_is_none_is_told(call: Callable[..., int], capsys: Say, port: str) -> None:
    assert call("serve", "--port", port) == 2
    assert "--port" in (line := one_line(capsys.readouterr().err)) and repr(port) in line


def test_a_data_folder_that_cannot_be_is_told(tmp_path: Path, capsys: Say) -> None:
    (tmp_path / "file").write_text("no folder")
    assert main(["serve", "--data-dir", str(tmp_path / "file" / "data")]) == 1
    assert "data folder" in (line := one_line(capsys.readouterr().err)) and "--data-dir" in line


def test_an_unknown_model_cannot_be_checked(call: Callable[..., int], capsys: Say) -> None:
    assert call("models", "check", "nobody") == 2
    assert "'nobody'" in one_line(capsys.readouterr().err)


def test_models_lists_what_can_be_used_and_what_cannot(call: Callable[..., int], tmp_path: Path, capsys: Say) -> None:
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    (models / "broken.safetensors").write_bytes(b"no header")
    assert call("models", "list") == 0
    assert any(line.startswith("broken ") and "cannot be used" in line for line in capsys.readouterr().out.splitlines())


def test_doctor_has_a_line_for_each_thing_and_a_remedy_for_each_problem(
    call: Callable[..., int], tmp_path: Path, capsys: Say
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
    ("runtime", "words"),
    [
        ("{half", ["ok", "not running"]),
        ('{"url": "http://127.0.0.1:9"}', ["problem", "http://127.0.0.1:9", "does not answer"]),
        ('{"url": 5}', ["problem", "5", "does not answer"]),
    ],
)
def test_doctor_is_not_misled_by_what_a_killed_service_left(
    call: Callable[..., int], tmp_path: Path, capsys: Say, runtime: str, words: list[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "runtime.json").write_text(runtime)
    call("doctor")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "service:" in line]
    for word in words:
        assert word in line


def test_doctor_sees_a_service_that_runs(service: LiveService, monkeypatch: pytest.MonkeyPatch, capsys: Say) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    main(["doctor", "--data-dir", str(service.data_dir)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "service:" in line]
    assert line.startswith("ok") and service.url in line


def test_a_job_runs_where_no_data_folder_can_be(
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


def test_the_package_runs_as_a_module() -> None:
    done = run_module("--version")
    assert (done.returncode, done.stdout) == (0, f"ad-service {ad_service.__version__}\n")


@pytest.mark.parametrize("command", [["serve"], ["synthesize"], ["run"], ["models"], ["doctor"], ["models", "fetch"]])
def test_every_command_has_help_that_needs_no_torch(command: list[str]) -> None:
    done = run_module(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: ad-service {' '.join(command)}")


def test_no_command_is_bad_input() -> None:
    done = run_module()
    assert done.returncode == 2
    assert "COMMAND" in one_line(done.stderr)


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(
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
