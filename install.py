"""Set Texture Distiller up, and run it. Standard library only; Python 3.10 or newer.

    python install.py                  set up the service in .venv
    python install.py blender [PATH]   put the add-on into Blender, and tell it where the service is
    python install.py demo             the whole way once, without a window: swatch and layout in, painted model out
    python install.py serve            run the service (the add-on's Start button does the same)
    python install.py test             every check and every test

Everything can be run again: what is done already is skipped. Nothing outside this folder is changed, except that
`blender` installs the add-on and writes one small file into the service's data folder.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ADDON = ROOT / "blender_addon"
PINS = ROOT / ".constraints"
WINDOWS = sys.platform == "win32"

BPY = {"4.2": "4.2.0", "5.0": "5.0.1"}
"""Blender as a Python module, by the Blender whose name it goes by. Both wheels are made for BPY_PYTHON alone."""
BPY_PYTHON = (3, 11)
OLDEST_BLENDER = (4, 2)
START_SECONDS = 120.0
"""How long the service may take until it has announced itself."""

SYSTEM_LIBRARIES = {
    "libX11.so.6": "libx11-6",
    "libXrender.so.1": "libxrender1",
    "libXxf86vm.so.1": "libxxf86vm1",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libgomp.so.1": "libgomp1",
}
"""What bpy's Linux wheels take from the system, and the Debian package that brings it."""


class SetupError(Exception):
    """What is wrong and what to do about it, in one or two sentences."""


def say(text: str) -> None:
    print(text, flush=True)


# -- running things -------------------------------------------------------------------------------------------------


def quietly(command: Sequence[str | Path]) -> str:
    """Run to the end and return what it printed; raises SetupError with its last lines when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-25:])
        raise SetupError(f"{tail}\n\nThis command failed with status {done.returncode}: {_shown(command)}")
    return done.stdout


def openly(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
    """Run with this terminal as its own; returns its exit status."""
    merged = None if env is None else {**os.environ, **env}
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=merged).returncode


def _shown(command: Sequence[str | Path]) -> str:
    return " ".join(str(part) for part in command)


# -- virtual environments -------------------------------------------------------------------------------------------


class Environment:
    """A virtual environment in a folder. `add` installs something into it once for each state of its pins."""

    def __init__(self, folder: Path, pins: Path) -> None:
        self.folder = folder
        self.pins = pins

    def tool(self, name: str) -> Path:
        return self.folder / ("Scripts" if WINDOWS else "bin") / (f"{name}.exe" if WINDOWS else name)

    def create(self, python: str) -> None:
        """Make it with that interpreter, unless it is there. One that was moved here is made anew."""
        home = self.folder / ".home"
        moved = home.is_file() and home.read_text(encoding="utf-8") != str(self.folder)
        if self.tool("python").exists() and not moved:
            return
        say(f"Making the environment {self.folder.name}")
        try:
            quietly([python, "-m", "venv", "--clear", self.folder])
        except SetupError as error:
            if "ensurepip" in str(error):
                raise SetupError(f"{python} lacks its venv module; on Debian, install python3-venv") from error
            raise
        home.write_text(str(self.folder), encoding="utf-8")

    def add(self, layer: str, what: str, requirements: Sequence[str], size: str) -> None:
        """pip-install the requirements in their pinned versions, unless that was done and nothing changed since."""
        files = [self.pins, ROOT / "pyproject.toml"]
        sources = [*(file.read_text(encoding="utf-8") for file in files), *requirements]
        state = hashlib.sha256("\n".join(sources).encode()).hexdigest()
        stamp = self.folder / f".{layer}"
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == state:
            say(f"{what}: ready in {self.folder.name}")
            return
        say(f"{what}: installing into {self.folder.name} (the first time {size} to download)")
        pip = [str(self.tool("python")), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--constraint", str(self.pins)]
        quietly([*pip, "pip", "setuptools"])  # the versions in the pins, which know dependency groups
        quietly([*pip, "--no-build-isolation", *requirements])
        stamp.write_text(state, encoding="utf-8")


def service_environment() -> Environment:
    """The service in .venv."""
    environment = Environment(ROOT / ".venv", PINS / "service.txt")
    environment.create(sys.executable)
    environment.add("service", "The service", ["--editable", str(ROOT)], "0.3 to 3 GB")
    return environment


def tools_environment() -> Environment:
    """The service's environment with the test tools in it."""
    environment = service_environment()
    environment.add("tools", "The test tools", ["--group", "dev"], "40 MB")
    return environment


def bpy_environment(blender: str) -> Environment:
    """Blender as a Python module, in an environment of its own."""
    environment = Environment(ROOT / f".venv-bpy-{blender}", PINS / "bpy.txt")
    if packages := missing_packages():
        raise SetupError(
            f"Blender's Python module needs libraries that this system lacks. On Debian or Ubuntu: "
            f"sudo apt-get install {' '.join(packages)}. Elsewhere, install the packages that have "
            f"{', '.join(name for name, package in SYSTEM_LIBRARIES.items() if package in packages)}."
        )
    environment.create(find_python(BPY_PYTHON))
    requirements = [f"bpy=={BPY[blender]}", "requests", "pytest"]
    environment.add("bpy", f"Blender {BPY[blender]} as a Python module", requirements, "350 MB")
    return environment


def missing_packages() -> list[str]:
    """Debian packages of the libraries that bpy needs and this Linux lacks; empty elsewhere."""
    if not sys.platform.startswith("linux"):
        return []
    return [package for library, package in SYSTEM_LIBRARIES.items() if not _loads(library)]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def find_python(version: tuple[int, int]) -> str:
    """An interpreter of exactly that version; raises SetupError when there is none."""
    if sys.version_info[:2] == version:
        return sys.executable
    name = ".".join(map(str, version))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates: list[list[str]] = [[f"python{name}"], ["py", f"-{name}"]]
    candidates += [[str(path)] for path in sorted(pyenv.glob(f"{name}.*/bin/python"))]
    candidates += [[f"{folder}/python{name}"] for folder in ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")]
    for candidate in candidates:
        try:
            question = "import sys, venv; print(*sys.version_info[:2], sys.executable)"
            answer = subprocess.run([*candidate, "-c", question], capture_output=True, text=True, timeout=30)
        except OSError:
            continue
        words = answer.stdout.strip().split(" ", 2)
        if answer.returncode == 0 and words[:2] == [str(part) for part in version]:
            return words[2]
    raise SetupError(
        f"Python {name} was not found, and Blender's Python module runs in no other version. "
        f"Install it (python.org, your system's packages, or pyenv) so that `python{name}` starts it."
    )


# -- the extension --------------------------------------------------------------------------------------------------


def extension_tool(bpy: Environment) -> list[str | Path]:
    """Blender's own command for extensions, as it lies in the wheel."""
    found = sorted(bpy.folder.glob("[Ll]ib/**/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
    if not found:
        raise SetupError(f"There is no whole bpy in {bpy.folder}: delete that folder and try again.")
    return [bpy.tool("python"), found[0]]


def build_extension(tool: Sequence[str | Path], folder: Path) -> Path:
    """The add-on as a checked zip in that folder, made by Blender's own command."""
    archive = folder / "texture_distiller.zip"
    quietly([*tool, "build", "--source-dir", ADDON, "--output-filepath", archive])
    quietly([*tool, "validate", archive])
    return archive


def find_blender() -> Path:
    """The newest Blender on the PATH or in its usual places; raises SetupError when there is none."""
    if on_path := shutil.which("blender"):
        return Path(on_path)
    places: dict[str, list[tuple[str | Path, str]]] = {
        "win32": [(os.environ.get("PROGRAMFILES", "C:/Program Files"), "Blender Foundation/*/blender.exe")],
        "darwin": [("/Applications", "Blender*.app/Contents/MacOS/Blender")],
        "linux": [("/snap/bin", "blender"), ("/opt", "blender*/blender"), (Path.home(), "blender*/blender")],
    }
    found = [path for folder, pattern in places.get(sys.platform, []) for path in sorted(Path(folder).glob(pattern))]
    if not found:
        raise SetupError("Blender was not found. Name it: python install.py blender PATH_OF_BLENDER")
    return found[-1]


def check_blender(blender: Path) -> str:
    """The version of that Blender; raises SetupError when it does not start or is too old."""
    try:
        printed = quietly([blender, "--version"])
    except OSError as error:
        raise SetupError(f"{blender} cannot be started: {error.strerror}.") from error
    match = re.search(r"Blender (\d+)\.(\d+)\S*", printed)
    if not match:
        raise SetupError(f"{blender} does not look like Blender: it says {printed.strip()[:80]!r}.")
    if (int(match[1]), int(match[2])) < OLDEST_BLENDER:
        oldest = ".".join(map(str, OLDEST_BLENDER))
        raise SetupError(f"{match[0]} is too old: extensions need Blender {oldest} or newer.")
    return match[0]


# -- the commands ---------------------------------------------------------------------------------------------------


def setup(torch_index: str | None) -> int:
    service = service_environment()
    if torch_index:
        service.add("torch", "torch from that index", ["--upgrade", "--extra-index-url", torch_index, "torch"], "3 GB")
    say(f"The service is ready. Next: {_python()} install.py blender, or see it work: {_python()} install.py demo")
    return 0


def _python() -> str:
    return "python" if WINDOWS else Path(sys.executable).name


def blender(path: Path | None) -> int:
    """Put the add-on into Blender, and write down where the service is, so that the add-on can start it."""
    program = path or find_blender()
    if program.is_dir():
        program = program / ("Contents/MacOS/Blender" if program.suffix == ".app" else "blender")
    say(f"{check_blender(program)}: {program}")
    service = service_environment()
    with tempfile.TemporaryDirectory() as folder:
        say("Building the extension")
        archive = build_extension([program, "--command", "extension"], Path(folder))
        say("Installing and enabling it")
        quietly([program, "--command", "extension", "install-file", "-r", "user_default", "-e", archive])
    question = "from ad_service.storage.settings import default_data_dir; print(default_data_dir())"
    data = Path(quietly([service.tool("python"), "-c", question]).strip().splitlines()[-1])
    data.mkdir(parents=True, exist_ok=True)
    launch = data / "launch.json"
    launch.write_text(json.dumps({"executable": str(service.tool("ad-service"))}), encoding="utf-8")
    say(f"Told the add-on where the service is: {launch}")
    say("Done. In Blender: the sidebar (N) of the 3D View or the Image Editor, tab Distill.")
    return 0


def serve(arguments: Sequence[str]) -> int:
    return openly([service_environment().tool("ad-service"), "serve", *arguments])


def demo(out: Path, version: str, size: int) -> int:
    """Run blender_addon/examples/demo.py in a Blender without a window, with a service of its own."""
    service, bpy = service_environment(), bpy_environment(version)
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        archive = build_extension(extension_tool(bpy), Path(folder))
        with running_service(service, Path(folder) / "data") as place:
            say(f"Blender {version}: modelling, painting the layout, synthesizing {size}x{size}, rendering")
            env = {**place, "BLENDER_USER_RESOURCES": str(Path(folder) / "blender")}
            options = ["--extension", str(archive), "--out", str(out), "--size", str(size)]
            status = openly([bpy.tool("python"), ADDON / "examples" / "demo.py", *options], env)
    if status == 0:
        say(f"The demo took {time.monotonic() - start:.0f} s. Its pictures and its .blend are in {out}")
    return status


@contextmanager
def running_service(service: Environment, data: Path) -> Iterator[dict[str, str]]:
    """A service with that data folder for as long as this is open; gives the variables by which others find it."""
    say("Starting the service")
    data.mkdir(parents=True)
    with (data / "start.log").open("wb") as log:
        command = [service.tool("ad-service"), "serve", "--port", "0", "--data-dir", data]
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START_SECONDS
        while not (data / "runtime.json").is_file():
            if process.poll() is not None or time.monotonic() > end:
                words = (data / "start.log").read_text(encoding="utf-8", errors="replace").strip()
                raise SetupError(f"The service did not start. It said:\n{words[-2000:]}")
            time.sleep(0.1)
        yield {"AD_SERVICE_DATA": str(data)}
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test() -> int:
    """Every check and every test; runs them all even when one fails. Returns 1 when any did."""
    service = tools_environment()
    bpys = {version: bpy_environment(version) for version in BPY}
    python = service.tool("python")
    failed = []

    def check(title: str, *command: str | Path, env: Mapping[str, str] | None = None) -> None:
        say(f"\n== {title}")
        start = time.monotonic()
        status = openly(command, env)
        say(f"== {title}: {'passed' if status == 0 else f'FAILED ({status})'} in {time.monotonic() - start:.0f} s")
        if status:
            failed.append(title)

    check("ruff check", python, "-m", "ruff", "check", ".")
    check("ruff format", python, "-m", "ruff", "format", "--check", ".")
    check("mypy", python, "-m", "mypy")
    check("tests of the service", python, "-m", "pytest", "tests", "--ignore", "tests/addon")
    with tempfile.TemporaryDirectory() as folder:
        for version, bpy in bpys.items():
            title = f"tests of the add-on in Blender {version}"
            check(title, bpy.tool("python"), "-m", "pytest", "tests/addon", env={"AD_SERVICE_PYTHON": str(python)})
            out = Path(folder) / f"demo-{version}"
            title = f"demo in Blender {version}"
            check(title, python, "install.py", "demo", "--out", out, "--blender", version, "--size", "128")
    say(f"\nFAILED: {', '.join(failed)}" if failed else "\nEverything passed.")
    return 1 if failed else 0


# -- the command line -----------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="install.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument(
        "--torch-index", metavar="URL", help="take torch from here, such as a build for your GPU that pip does not find"
    )
    commands = top.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    install = commands.add_parser("blender", help="put the add-on into Blender and tell it where the service is")
    install.add_argument("path", type=Path, nargs="?", help="Blender's program; looked for when not given")
    show = commands.add_parser("demo", help="the whole way once, without a window")
    show.add_argument("--out", type=Path, default=ROOT / "demo-output", help="folder of the results (demo-output)")
    show.add_argument("--blender", choices=list(BPY), default="5.0", help="which Blender to run it in (5.0)")
    show.add_argument("--size", type=int, default=512, help="side of the texture in pixels (512)")
    run = commands.add_parser("serve", help="run the service; further options go to `ad-service serve`", add_help=False)
    run.set_defaults(rest=True)
    commands.add_parser("test", help="every check and every test")
    commands.add_parser("packages", help="print the Debian packages that Blender's Python module needs and lacks here")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    top = parser()
    given, rest = top.parse_known_args(arguments)
    if rest and given.command != "serve":
        top.error(f"unknown arguments: {' '.join(rest)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves by an exception: what was started is ended
    try:
        if given.command == "blender":
            return blender(given.path)
        if given.command == "demo":
            return demo(given.out.resolve(), given.blender, given.size)
        if given.command == "serve":
            return serve(rest)
        if given.command == "test":
            return test()
        if given.command == "packages":
            say(" ".join(missing_packages()))
            return 0
        return setup(given.torch_index)
    except SetupError as error:
        print(f"install.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
