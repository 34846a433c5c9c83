"""The manual that ships with the add-on: the artist's part of the README as one HTML page, without pictures."""

from __future__ import annotations

import html
import re

STYLE = (
    "body{max-width:46em;margin:2em auto;padding:0 1em;font:16px/1.5 sans-serif;color:#222;background:#fff}"
    "code,pre{background:#eee}table{border-collapse:collapse}"
    "td,th{border:1px solid #bbb;padding:.3em .6em;text-align:left}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#222}code,pre{background:#333}a{color:#8bf}}"
)


def page(title: str, markdown: str) -> str:
    """An HTML page of Markdown as the README uses it: headings, paragraphs, lists, tables, blocks of code."""
    blocks = re.split(r"\n\s*\n", re.sub(r"\n(?=#+ )|(?<=\n)(#+ .*)\n", r"\n\n\1\n\n", markdown).strip())
    body = "\n".join(filter(None, (_block(block) for block in blocks)))
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _block(block: str) -> str:
    if match := re.fullmatch(r"(#+) (.*)", block.strip()):
        level = len(match[1])
        return f'<h{level} id="{anchor(match[2])}">{_inline(match[2])}</h{level}>'
    if block.startswith("    "):
        return f"<pre>{html.escape(re.sub('(?m)^    ', '', block))}</pre>"
    if block.startswith("|"):
        head, _, *rows = block.splitlines()
        return f"<table>{_row(head, 'th')}{''.join(_row(row, 'td') for row in rows)}</table>"
    for mark, tag in ((r"\d+\. ", "ol"), (r"- ", "ul")):
        if re.match(mark, block):
            items = re.split(rf"(?m)^{mark}", block)[1:]
            return f"<{tag}>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</{tag}>"
    text = _inline(block)
    return f"<p>{text}</p>" if text else ""


def _row(line: str, tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_inline(cell)}</{tag}>' for cell in line.strip('| ').split(' | '))}</tr>"


def _inline(text: str) -> str:
    """Emphasis, code and links. Pictures, and links to files that the add-on does not have, are left out."""
    text = html.escape(re.sub(r"\s+", " ", text).strip(), quote=False)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\((https://[^)]*|#[^)]*)\)", r'<a href="\2">\1</a>', text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
    return re.sub(r"\*([^*]+)\*", r"<i>\1</i>", text).strip()
