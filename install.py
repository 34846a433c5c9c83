"""Install and run Texture Distiller. Standard library only; Python 3.10 or newer.

    python install.py                  install the service into .venv
    python install.py blender [PATH]   install the add-on in Blender and tell it where the service is
    python install.py demo             run the whole pipeline without a window: swatch, layout, texture, rendering
    python install.py serve            run the service (the add-on's Start button does the same)
    python install.py test             run every check and every test
    python install.py package          build the service's wheel and the add-on's zip

Every command can be repeated and skips what is done already. Nothing outside this folder is changed, except that
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
"""Version of the bpy package for each version of Blender. The wheels exist for BPY_PYTHON only."""
BPY_PYTHON = (3, 11)
OLDEST_BLENDER = (4, 2)
START_SECONDS = 120.0
"""Seconds that the service may take to write its address."""

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
"""The system libraries that bpy's Linux wheels need, and their Debian packages."""


class SetupError(Exception):
    """A problem of the installation; its text says what is wrong and what to do."""


def log(text: str) -> None:
    print(text, flush=True)


# -- subprocesses ---------------------------------------------------------------------------------------------------


def run_captured(command: Sequence[str | Path]) -> str:
    """Run a command and return its output; raises SetupError with the last lines of it when the command fails."""
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
        line = " ".join(str(part) for part in command)
        raise SetupError(f"{tail}\n\nThis command failed with status {done.returncode}: {line}")
    return done.stdout


def run_in_terminal(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
    """Run a command with its output in this terminal, `env` added to the environment; returns its exit status."""
    merged = None if env is None else {**os.environ, **env}
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=merged).returncode


# -- virtual environments -------------------------------------------------------------------------------------------


class Environment:
    """A virtual environment in a folder. `add` installs a layer of packages once for each state of the pins."""

    def __init__(self, folder: Path, pins: Path) -> None:
        self.folder = folder
        self.pins = pins

    def tool(self, name: str) -> Path:
        return self.folder / ("Scripts" if WINDOWS else "bin") / (f"{name}.exe" if WINDOWS else name)

    def create(self, python: str) -> None:
        """Create it with that interpreter if it does not exist; an environment that was moved is created again.

        Raises SetupError where the folder is a link: creating would empty an environment that belongs elsewhere.
        """
        real = self.folder.parent.resolve() / self.folder.name
        if self.folder.resolve() != real:
            raise SetupError(
                f"{self.folder} is a link to {self.folder.resolve()}. Nothing was changed there. "
                f"Remove the link, so that an environment can be created in its place."
            )
        home = self.folder / ".home"
        moved = home.is_file() and home.read_text(encoding="utf-8") != str(self.folder)
        if self.tool("python").exists() and not moved:
            return
        log(f"Creating the environment {self.folder.name}")
        try:
            run_captured([python, "-m", "venv", "--clear", self.folder])
        except SetupError as error:
            if "ensurepip" in str(error):
                raise SetupError(f"{python} lacks its venv module; on Debian, install python3-venv") from error
            raise
        home.write_text(str(self.folder), encoding="utf-8")

    def add(self, layer: str, what: str, requirements: Sequence[str], size: str) -> None:
        """Install requirements in their pinned versions, unless they are installed and nothing changed since."""
        files = [self.pins, ROOT / "pyproject.toml"]
        sources = [*(file.read_text(encoding="utf-8") for file in files), *requirements]
        state = hashlib.sha256("\n".join(sources).encode()).hexdigest()
        stamp = self.folder / f".{layer}"
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == state:
            log(f"{what}: ready in {self.folder.name}")
            return
        log(f"{what}: installing into {self.folder.name} (downloads {size} the first time)")
        pip = [str(self.tool("python")), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--constraint", str(self.pins)]
        run_captured([*pip, "pip", "setuptools"])  # the versions in the pins, which know dependency groups
        run_captured([*pip, "--no-build-isolation", *requirements])
        stamp.write_text(state, encoding="utf-8")


def service_environment() -> Environment:
    """The environment .venv with the service."""
    environment = Environment(ROOT / ".venv", PINS / "service.txt")
    environment.create(sys.executable)
    environment.add("service", "The service", ["--editable", str(ROOT)], "0.3 to 3 GB")
    return environment


def tools_environment() -> Environment:
    """The service's environment with the test tools."""
    environment = service_environment()
    environment.add("tools", "The test tools", ["--group", "dev"], "40 MB")
    return environment


def bpy_environment(blender: str) -> Environment:
    """An environment with Blender as a Python module."""
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
    """An interpreter of exactly that version; raises SetupError if there is none."""
    if sys.version_info[:2] == version:
        return sys.executable
    name = ".".join(map(str, version))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates: list[list[str]] = [[f"python{name}"], ["py", f"-{name}"]]
    candidates += [[str(path)] for path in sorted(pyenv.glob(f"{name}.*/bin/python"))]
    candidates += [[f"{folder}/python{name}"] for folder in ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")]
    for candidate in candidates:
        try:
            code = "import sys, venv; print(*sys.version_info[:2], sys.executable)"
            done = subprocess.run([*candidate, "-c", code], capture_output=True, text=True, timeout=30)
        except OSError:
            continue
        words = done.stdout.strip().split(" ", 2)
        if done.returncode == 0 and words[:2] == [str(part) for part in version]:
            return words[2]
    raise SetupError(
        f"Python {name} was not found, and Blender's Python module needs exactly this version. "
        f"Install it (python.org, your system's packages, or pyenv) so that `python{name}` starts it."
    )


# -- the extension --------------------------------------------------------------------------------------------------


def extension_tool(bpy: Environment) -> list[str | Path]:
    """Blender's own command for extensions, from the bpy wheel."""
    found = sorted(bpy.folder.glob("[Ll]ib/**/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
    if not found:
        raise SetupError(f"The bpy in {bpy.folder} is incomplete: delete that folder and try again.")
    return [bpy.tool("python"), found[0]]


def build_extension(tool: Sequence[str | Path], folder: Path) -> Path:
    """Build and validate the add-on's zip in that folder with Blender's own command; returns its path."""
    archive = folder / "texture_distiller.zip"
    run_captured([*tool, "build", "--source-dir", ADDON, "--output-filepath", archive])
    run_captured([*tool, "validate", archive])
    return archive


def find_blender() -> Path:
    """The Blender on the PATH, or else the newest one in the usual folders; raises SetupError if there is none."""
    if on_path := shutil.which("blender"):
        return Path(on_path)
    places: dict[str, list[tuple[str | Path, str]]] = {
        "win32": [(os.environ.get("PROGRAMFILES", "C:/Program Files"), "Blender Foundation/*/blender.exe")],
        "darwin": [("/Applications", "Blender*.app/Contents/MacOS/Blender")],
        "linux": [("/snap/bin", "blender"), ("/opt", "blender*/blender"), (Path.home(), "blender*/blender")],
    }
    found = [path for folder, pattern in places.get(sys.platform, []) for path in sorted(Path(folder).glob(pattern))]
    if not found:
        raise SetupError("Blender was not found. Give its path: python install.py blender PATH_OF_BLENDER")
    return found[-1]


def check_blender(blender: Path) -> str:
    """The version of a Blender, such as "Blender 4.2.1"; raises SetupError if it does not start or is too old."""
    try:
        printed = run_captured([blender, "--version"])
    except OSError as error:
        raise SetupError(f"{blender} cannot be started: {error.strerror}.") from error
    match = re.search(r"Blender (\d+)\.(\d+)\S*", printed)
    if not match:
        raise SetupError(f"{blender} does not look like Blender: it printed {printed.strip()[:80]!r}.")
    if (int(match[1]), int(match[2])) < OLDEST_BLENDER:
        oldest = ".".join(map(str, OLDEST_BLENDER))
        raise SetupError(f"{match[0]} is too old: extensions need Blender {oldest} or newer.")
    return match[0]


# -- the commands ---------------------------------------------------------------------------------------------------


def setup(torch_index: str | None) -> int:
    service = service_environment()
    if torch_index:
        service.add("torch", "torch from that index", ["--upgrade", "--extra-index-url", torch_index, "torch"], "3 GB")
    log(f"The service is ready. Next: {_python()} install.py blender, or try it: {_python()} install.py demo")
    return 0


def _python() -> str:
    return "python" if WINDOWS else Path(sys.executable).name


def blender(path: Path | None) -> int:
    """Install the add-on in Blender, and write the service's path to launch.json, from which the add-on starts it."""
    program = path or find_blender()
    if program.is_dir():
        program = program / ("Contents/MacOS/Blender" if program.suffix == ".app" else "blender")
    log(f"{check_blender(program)}: {program}")
    service = service_environment()
    with tempfile.TemporaryDirectory() as folder:
        log("Building the extension")
        archive = build_extension([program, "--command", "extension"], Path(folder))
        log("Installing and enabling it")
        run_captured([program, "--command", "extension", "install-file", "-r", "user_default", "-e", archive])
    code = "from ad_service.storage.settings import default_data_dir; print(default_data_dir())"
    data = Path(run_captured([service.tool("python"), "-c", code]).strip().splitlines()[-1])
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    launch = data / "launch.json"
    launch.write_text(json.dumps({"executable": str(service.tool("ad-service"))}), encoding="utf-8")
    log(f"The add-on finds the service through {launch}")
    log("Done. In Blender, open the tab Distill in the sidebar (N) of the 3D View or the Image Editor.")
    return 0


def serve(arguments: Sequence[str]) -> int:
    return run_in_terminal([service_environment().tool("ad-service"), "serve", *arguments])


def demo(out: Path, version: str, size: int) -> int:
    """Run blender_addon/examples/demo.py in a Blender without a window and a temporary service."""
    service, bpy = service_environment(), bpy_environment(version)
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        archive = build_extension(extension_tool(bpy), Path(folder))
        with running_service(service, Path(folder) / "data") as place:
            log(f"Blender {version}: modeling, painting the layout, synthesizing {size}x{size}, rendering")
            env = {**place, "BLENDER_USER_RESOURCES": str(Path(folder) / "blender")}
            options = ["--extension", str(archive), "--out", str(out), "--size", str(size)]
            status = run_in_terminal([bpy.tool("python"), ADDON / "examples" / "demo.py", *options], env)
    if status == 0:
        log(f"The demo took {time.monotonic() - start:.0f} s. The pictures and the .blend are in {out}")
    return status


@contextmanager
def running_service(service: Environment, data: Path) -> Iterator[dict[str, str]]:
    """Run a service with that data folder; yields the environment variables with which the add-on finds it."""
    log("Starting the service")
    data.mkdir(parents=True)
    with (data / "start.log").open("wb") as stdout:
        command = [service.tool("ad-service"), "serve", "--port", "0", "--data-dir", data]
        process = subprocess.Popen([str(part) for part in command], stdout=stdout, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START_SECONDS
        while not (data / "runtime.json").is_file():
            if process.poll() is not None or time.monotonic() > end:
                output = (data / "start.log").read_text(encoding="utf-8", errors="replace").strip()
                raise SetupError(f"The service did not start. Its output was:\n{output[-2000:]}")
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
    """Run every check and every test, also when one fails. Returns 1 if any failed."""
    service = tools_environment()
    bpys = {version: bpy_environment(version) for version in BPY}
    python = service.tool("python")
    failed = []

    def check(title: str, *command: str | Path, env: Mapping[str, str] | None = None) -> None:
        log(f"\n== {title}")
        start = time.monotonic()
        status = run_in_terminal(command, env)
        log(f"== {title}: {'passed' if status == 0 else f'FAILED ({status})'} in {time.monotonic() - start:.0f} s")
        if status:
            failed.append(title)

    check("ruff check", python, "-m", "ruff", "check", ".")
    check("ruff format", python, "-m", "ruff", "format", "--check", ".")
    check("mypy", python, "-m", "mypy")
    window = "tests in a window of Blender, if there is one"
    check(window, python, "-m", "pytest", "tests/window", "-m", "window", "-rs")
    check("tests of the service", python, "-m", "pytest", "tests", "--ignore", "tests/addon")
    with tempfile.TemporaryDirectory() as folder:
        for version, bpy in bpys.items():
            title = f"tests of the add-on in Blender {version}"
            check(title, bpy.tool("python"), "-m", "pytest", "tests/addon", env={"AD_SERVICE_PYTHON": str(python)})
            out = Path(folder) / f"demo-{version}"
            title = f"demo in Blender {version}"
            check(title, python, "install.py", "demo", "--out", out, "--blender", version, "--size", "128")
    log(f"\nFAILED: {', '.join(failed)}" if failed else "\nEverything passed.")
    return 1 if failed else 0


def version() -> str:
    """The version of the project, read from ad_service/__init__.py, where it is written."""
    return _version_in(ROOT / "ad_service" / "__init__.py", "__version__")


def _version_in(file: Path, name: str) -> str:
    match = re.search(rf'^{name} = "(.+)"', file.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise SetupError(f'{file} has no line {name} = "..."')
    return match[1]


def build_wheel(python: Path, folder: Path) -> Path:
    """Build the service's wheel in that folder from a copy of the sources; returns its path.

    A copy, since setuptools would also pack what an earlier build left in build/.
    """
    with tempfile.TemporaryDirectory() as copy:
        for name in ("ad_service", "blender_addon"):
            shutil.copytree(ROOT / name, Path(copy) / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy)
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
        run_captured([python, "-m", "pip", "wheel", *options, "--wheel-dir", folder, copy])
    return folder / f"texture_distiller-{version()}-py3-none-any.whl"


def package(out: Path) -> int:
    """Build the service's wheel and the add-on's zip in a folder; raises SetupError if their versions differ."""
    manifest = ADDON / "blender_manifest.toml"
    if _version_in(manifest, "version") != version():
        raise SetupError(f"{manifest} has version {_version_in(manifest, 'version')}; change it to {version()}.")
    service, bpy = service_environment(), bpy_environment(max(BPY))
    out.mkdir(parents=True, exist_ok=True)
    log("Building the wheel")
    log(f"  {build_wheel(service.tool('python'), out)}")
    log("Building the extension")
    archive = build_extension(extension_tool(bpy), out)
    log(f"  {archive.replace(out / f'texture_distiller-{version()}.zip')}")
    return 0


# -- the command line -----------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="install.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument(
        "--torch-index", metavar="URL", help="index of a torch build that pip does not find, such as one for your GPU"
    )
    commands = top.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    install = commands.add_parser("blender", help="install the add-on in Blender and tell it where the service is")
    install.add_argument("path", type=Path, nargs="?", help="Blender's program (default: searched for)")
    show = commands.add_parser("demo", help="run the whole pipeline without a window")
    show.add_argument("--out", type=Path, default=ROOT / "demo-output", help="folder for the results (demo-output)")
    show.add_argument("--blender", choices=list(BPY), default="5.0", help="which Blender to run it in (5.0)")
    show.add_argument("--size", type=int, default=512, help="side of the texture in pixels (512)")
    run = commands.add_parser("serve", help="run the service; further options go to `ad-service serve`", add_help=False)
    run.set_defaults(rest=True)
    commands.add_parser("test", help="run every check and every test")
    pack = commands.add_parser("package", help="build the service's wheel and the add-on's zip")
    pack.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for both files (dist)")
    commands.add_parser("packages", help="print the Debian packages that Blender's Python module needs and are missing")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    top = parser()
    given, rest = top.parse_known_args(arguments)
    if rest and given.command != "serve":
        top.error(f"unknown arguments: {' '.join(rest)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by an exception, so that subprocesses are ended
    try:
        if given.command == "blender":
            return blender(given.path)
        if given.command == "demo":
            return demo(given.out.resolve(), given.blender, given.size)
        if given.command == "serve":
            return serve(rest)
        if given.command == "test":
            return test()
        if given.command == "package":
            return package(given.out.resolve())
        if given.command == "packages":
            log(" ".join(missing_packages()))
            return 0
        return setup(given.torch_index)
    except SetupError as error:
        print(f"install.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
