"""The pages say what is true: options, commands, files, links and errors. It also writes their tables anew:

python -m tests.test_docs
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import install
from ad_service.bench import report
from ad_service.cli import main
from ad_service.storage import models
from blender_addon import wire
from blender_addon.wire import Parameter

ROOT = Path(install.__file__).resolve().parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# -- tables ---------------------------------------------------------------------------------------------------------


def parameter_table() -> str:
    """The parameters of every job kind, as a Markdown table."""
    rows: dict[Parameter, list[str]] = {}
    for kind in wire.KINDS.values():
        for parameter in kind.parameters:
            rows.setdefault(parameter, []).append(kind.name)
    lines = ["| parameter | default | values | what it does |", "|---|---|---|---|"]
    names = list(dict.fromkeys(parameter.name for parameter in rows))
    for parameter, kinds in sorted(rows.items(), key=lambda row: (row[0].advanced, names.index(row[0].name))):
        only = "" if len(kinds) == len(wire.KINDS) else f" (only {', '.join(kinds)})"
        advanced = "*advanced:* " if parameter.advanced else ""
        default = f"{parameter.default:g}" if isinstance(parameter.default, float) else parameter.default
        lines.append(
            f"| `{parameter.name}` | {default} | {parameter.value.range()} | {advanced}{parameter.help}{only} |"
        )
    return "\n".join(lines)


def error_table() -> str:
    """The closed list of errors, as a Markdown table."""
    lines = ["| error | HTTP | what it means | what to do | again? |", "|---|---|---|---|---|"]
    for error in wire.ERRORS.values():
        again = "yes" if error.retryable else "no"
        lines.append(f"| `{error.name}` | {error.status} | {error.title} | {error.remedy} | {again} |")
    return "\n".join(lines)


def speed_tables() -> str:
    """What the benchmark measured and wrote as JSON into docs/speed, one table for each file."""
    files = sorted((ROOT / "docs" / "speed").glob("*.json"))
    return "\n".join(report.Report.read(file.read_text(encoding="utf-8")).markdown() for file in files).rstrip("\n")


TABLES = (
    (ROOT / "README.md", "parameters", parameter_table),
    (ROOT / "README.md", "speed", speed_tables),
    (ROOT / "docs" / "errors.md", "errors", error_table),
)


def parts(page: Path, name: str) -> tuple[str, str, str]:
    """A page as what stands before its table, the table, and what stands after it."""
    text = page.read_text(encoding="utf-8")
    match = re.search(rf"(.*<!-- {name}:[^\n]*-->\n)(.*?)(<!-- end -->.*)", text, re.DOTALL)
    assert match, f"{page} has no table between <!-- {name}: ... --> and <!-- end -->"
    return match[1], match[2], match[3]


@pytest.mark.parametrize(("page", "name", "table"), TABLES, ids=[name for _, name, _ in TABLES])
def test_the_tables_are_those_of_the_contract_and_of_what_was_measured(
    page: Path, name: str, table: Callable[[], str]
) -> None:
    assert parts(page, name)[1] == table() + "\n", "run: python -m tests.test_docs"


# -- commands -------------------------------------------------------------------------------------------------------


def options_of(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, set[str]]]:
    """Every command below a parser with the options that it takes."""
    yield name, {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                yield from options_of(child, f"{name} {word}")


def commands() -> dict[str, set[str]]:
    known = dict(options_of(main.make_parser(), "ad-service"))
    return known | dict(options_of(install.parser(), "install.py"))


def examples(page: Path) -> list[str]:
    """The commands that a page shows, in its blocks and between backticks."""
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
            assert words[len(name.split())].startswith("-"), f"{line!r}: there is no such command"
        for option in re.findall(r"(?<!\S)--[a-z-]+", line):
            assert option in known[name], f"{line!r}: {name} has no {option}"


def test_the_readme_shows_every_command() -> None:
    shown = " ".join(examples(ROOT / "README.md"))
    for name in commands():
        if len(name.split()) == 2 and name != "install.py packages":
            assert name in shown, f"the README does not show `{name}`"


def test_the_readme_lists_every_model_with_its_licence(tmp_path: Path) -> None:
    rows = re.findall(r"^\| (`.*`) \|.*\| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name: licence for names, licence in rows for name in re.findall(r"`([\w-]+)`", names)}
    known = {name: model.license for name, model in models.KNOWN.items()}
    known |= {model.name: model.license for model in models.available(tmp_path)}
    assert known.items() <= listed.items()


def test_every_button_named_is_in_the_panel() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## In Blender")[1].split("\n## ")[0]
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "blender_addon").glob("*.py"))
    named = {re.sub(r"\s+", " ", words) for words in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", section)}
    assert len(named) > 5
    fields = {p.name.replace("_", " ").title() for kind in wire.KINDS.values() for p in kind.parameters}
    assert {words for words in named - fields if f'"{words}' not in source} == set()


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


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert sorted(path for path in modules() if path.rsplit("/", 1)[-1] not in text) == []


def write_tables() -> None:
    """Put the tables into the pages."""
    for page, name, table in TABLES:
        before, _, after = parts(page, name)
        page.write_text(f"{before}{table()}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    write_tables()
