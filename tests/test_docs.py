"""The pages agree with the code: tables, commands, buttons, files, links, the Python example, the add-on's manual.

`python -m tests.test_docs` writes the tables into the pages, and the manual.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

import install
from ad_service.bench import report
from ad_service.cli.command_line import make_parser
from ad_service.storage import models
from blender_addon import wire
from blender_addon.link import records
from blender_addon.wire import Parameter
from tests.support import markdown

ROOT = Path(install.__file__).resolve().parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

MANNERED = (
    "anew",
    "amiss",
    "at hand",
    "told",
    "whatever",
    "such as is",
    "so many",
    "of its own",
    "to be seen",
    "learnt",
)
BRITISH = (
    "colour",
    "grey",
    "licence",
    "centre",
    "synthesise",
    "optimise",
    "quantise",
    "normalise",
    "cancelled",
    "artefact",
)
"""Words that the pages, in plain American English, do without."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# -- tables ---------------------------------------------------------------------------------------------------------


def parameter_table() -> str:
    """The parameters of the kinds of job that make a texture, as a Markdown table."""
    rows: dict[Parameter, list[str]] = {}
    all_kinds = (*wire.TEXTURE_KINDS.values(), wire.GENERATE)
    for kind in all_kinds:
        for parameter in kind.parameters:
            rows.setdefault(parameter, []).append(kind.name)
    lines = ["| parameter | in the panel | default | values | meaning |", "|---|---|---|---|---|"]
    names = list(dict.fromkeys(parameter.name for parameter in rows))
    for parameter, kinds in sorted(rows.items(), key=lambda row: (row[0].advanced, names.index(row[0].name))):
        only = "" if len(kinds) == len(all_kinds) else f" (only {', '.join(kinds)})"
        advanced = "*advanced:* " if parameter.advanced else ""
        default = f"{parameter.default:g}" if isinstance(parameter.default, float) else parameter.default
        meaning = f"{advanced}{parameter.help}{only}"
        lines.append(
            f"| `{parameter.name}` | {label(parameter.name)} | {default} | {parameter.value.range()} | {meaning} |"
        )
    return "\n".join(lines)


def label(name: str) -> str:
    """A parameter's name in the panel: from LABELS in scene/properties.py, which needs bpy and cannot be imported."""
    tree = ast.parse((ROOT / "blender_addon" / "scene" / "properties.py").read_text(encoding="utf-8"))
    (labels,) = (n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "LABELS")
    return ast.literal_eval(labels).get(name) or name.replace("_", " ").title()


def error_table() -> str:
    """The closed list of errors, as a Markdown table."""
    lines = ["| error | HTTP | meaning | remedy | retry |", "|---|---|---|---|---|"]
    for error in wire.ERRORS.values():
        retry = "yes" if error.retryable else "no"
        lines.append(f"| `{error.name}` | {error.status} | {error.title} | {error.remedy} | {retry} |")
    return "\n".join(lines)


def speed_tables() -> str:
    """The measurements in docs/speed, one Markdown table for each file."""
    files = sorted((ROOT / "docs" / "speed").glob("*.json"))
    return "\n".join(report.Report.read(file.read_text(encoding="utf-8")).markdown() for file in files).rstrip("\n")


TABLES = (
    (ROOT / "docs" / "parameters.md", "parameters", parameter_table),
    (ROOT / "docs" / "benchmarks.md", "speed", speed_tables),
    (ROOT / "docs" / "errors.md", "errors", error_table),
)


def parts(page: Path, name: str) -> tuple[str, str, str]:
    """A page in three parts: before the table of that name, the table, after it."""
    text = page.read_text(encoding="utf-8")
    match = re.search(rf"(.*<!-- {name}:[^\n]*-->\n)(.*?)(<!-- end -->.*)", text, re.DOTALL)
    assert match, f"{page} has no table between <!-- {name}: ... --> and <!-- end -->"
    return match[1], match[2], match[3]


@pytest.mark.parametrize(("page", "name", "table"), TABLES, ids=[name for _, name, _ in TABLES])
def test_tables_match_the_contract_and_the_measurements(page: Path, name: str, table: Callable[[], str]) -> None:
    assert parts(page, name)[1] == table() + "\n", "run: python -m tests.test_docs"


# -- the add-on's manual ----------------------------------------------------------------------------------------------

MANUAL = ROOT / "blender_addon" / "manual.html"
FIRST, LAST = "## Your first texture in Blender", "## On the command line"
MORE = ("## Models", "## When something goes wrong", "## Privacy")


def manual() -> str:
    """The README's sections for artists as an HTML page."""
    text = README.read_text(encoding="utf-8")
    sections = text[text.index(FIRST) : text.index(LAST)]
    sections += "".join(f"{heading}{text.split(heading)[1].split(chr(10) + '## ')[0]}\n" for heading in MORE)
    return markdown.page("Texture Distiller", f"# Texture Distiller\n\n{sections}")


def test_the_manual_of_the_addon_has_the_readmes_text() -> None:
    assert MANUAL.read_text(encoding="utf-8") == manual(), "run: python -m tests.test_docs"


def test_help_links_lead_to_sections_of_the_manual() -> None:
    code = (ROOT / "blender_addon" / "ui" / "help.py").read_text(encoding="utf-8")
    linked = set(re.findall(r'", "([a-z-]+)"\)', code))
    assert linked and linked <= set(re.findall(r'id="([^"]+)"', manual()))


# -- commands -------------------------------------------------------------------------------------------------------


def options_of(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, set[str]]]:
    """Every command of a parser with its options."""
    yield name, {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                yield from options_of(child, f"{name} {word}")


def commands() -> dict[str, set[str]]:
    known = dict(options_of(make_parser(), "ad-service"))
    return known | dict(options_of(install.parser(), "install.py"))


def examples(page: Path) -> list[str]:
    """The commands that a page shows, in indented blocks and between backticks."""
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"^    (.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text.replace("\n", " "))
    return [line.strip() for line in shown if re.match(r"\s*(python )?(ad-service|install\.py)\b", line)]


@each_page
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    known = commands()
    for line in examples(page):
        words = line.removeprefix("python ").split()
        name = words[0]
        for word in words[1:]:
            if f"{name} {word}" in known:
                name = f"{name} {word}"
        takes_verbs = any(other.startswith(f"{name} ") for other in known)
        if takes_verbs and len(words) > len(name.split()):
            assert words[len(name.split())].startswith("-"), f"{line!r} is not a command"
        for option in re.findall(r"(?<!\S)--[a-z-]+", line):
            assert option in known[name], f"{line!r}: {name} has no {option}"


def test_the_readme_shows_every_command() -> None:
    shown = " ".join(examples(README))
    for name in commands():
        if len(name.split()) == 2 and name != "install.py packages":
            assert name in shown, f"the README does not show `{name}`"


def test_the_readme_lists_every_model_with_its_license(tmp_path: Path) -> None:
    rows = re.findall(r"^\| (`.*`) \|.*\| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name: license for names, license in rows for name in re.findall(r"`([\w-]+)`", names)}
    known = {name: model.license for name, model in models.KNOWN.items()}
    known |= {model.name: model.license for model in models.available(tmp_path)}
    assert known.items() <= listed.items()


def test_every_button_named_in_the_readme_is_in_the_panel() -> None:
    section = README.read_text(encoding="utf-8").split("## Your first texture in Blender")[1].split("\n## ")[0]
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "blender_addon").rglob("*.py"))
    named = {re.sub(r"\s+", " ", words) for words in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", section)}
    assert len(named) > 10
    fields = {label(p.name) for kind in wire.KINDS.values() for p in kind.parameters}
    assert {words for words in named - fields if not re.search(rf'"{words}["{{ ]', source)} == set()


def test_the_readme_explains_the_metrics_of_the_panel() -> None:
    rows = README.read_text(encoding="utf-8").split("| measurement |")[1].split("\n\n")[0]
    explained = set(re.findall(r"^\| ([A-Z][^|]*) \|", rows, re.MULTILINE))
    texts = [metric.text for metric in records.METRICS]
    shown = {re.split(r"( [XY])? [{(]", text)[0] for text in texts}
    assert explained == shown


def test_every_promise_names_tests_that_exist() -> None:
    rows = re.findall(
        r"^\| .* \| (.*) \|$", (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    promises = [row for row in rows if row != "test"]
    assert len(promises) > 20
    for row in promises:
        files = re.findall(r"`(\w+/test_\w+\.py)`", row)
        assert files, row
        text = "".join((ROOT / "tests" / file).read_text(encoding="utf-8") for file in files)
        for name in re.findall(r"`(test_\w+)`", row):
            assert f"def {name}(" in text, name


# -- the Python example ---------------------------------------------------------------------------------------------


def test_the_python_example_in_the_readme_runs(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[0]
    shutil.copytree(ROOT / "blender_addon" / "examples", tmp_path / "blender_addon" / "examples")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    small = code.replace("512", "128")
    done = subprocess.run(
        [sys.executable, "-c", small], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "measuring" in done.stdout
    with Image.open(tmp_path / "more_cobbles.png") as picture:
        assert (picture.size, picture.mode) == ((128, 128), "RGB")


# -- language -------------------------------------------------------------------------------------------------------


@each_page
def test_pages_are_written_in_plain_american_english(page: Path) -> None:
    text = re.sub(r"\s+", " ", page.read_text(encoding="utf-8")).lower()
    found = [word for word in MANNERED if re.search(rf"\b{word}\b", text)] + [word for word in BRITISH if word in text]
    assert found == []


# -- files and links ------------------------------------------------------------------------------------------------


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            there = (page.parent / path) if path else page
            assert there.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(there), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def modules() -> set[str]:
    """Every Python file of the service and of the add-on, from the top of the repository."""
    return {
        path.relative_to(ROOT).as_posix()
        for part in ("ad_service", "blender_addon")
        for path in (ROOT / part).rglob("*.py")
        if path.name != "__init__.py"
    }


@each_page
def test_every_python_file_named_exists(page: Path) -> None:
    names = {path.rsplit("/", 1)[-1] for path in modules()} | {path.name for path in (ROOT / "tests").rglob("*.py")}
    for name in re.findall(r"[\w/]+\.py\b", page.read_text(encoding="utf-8")):
        assert name.rsplit("/", 1)[-1] in names | {"install.py", "__init__.py"}, f"{page.name} names {name}"


def test_the_architecture_lists_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w/]+)` \|", text, re.MULTILINE))
    folders = {path.rsplit("/", 1)[0] for path in modules() if path.count("/") > 1}
    core = {folder for folder in folders if folder.startswith("ad_service/core/")}
    assert {"/".join(folder.split("/")[:2]) for folder in folders} | core <= listed
    assert sorted(folder for folder in listed if not (ROOT / folder).is_dir()) == []


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "index.md" and f"{page.name})" not in index] == []


def write_tables() -> None:
    """Write the tables into the pages, and the manual."""
    for page, name, table in TABLES:
        before, _, after = parts(page, name)
        page.write_text(f"{before}{table()}\n{after}", encoding="utf-8")
    MANUAL.write_text(manual(), encoding="utf-8")


if __name__ == "__main__":
    write_tables()
