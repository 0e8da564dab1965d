"""One self-contained page: words, tables and pictures in a single HTML file that asks the network for nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color: #222; background: #fff; max-width: 70rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
.subtitle, .note, figcaption { color: #595959; font-size: .875rem; }
.verdict { border-left: 4px solid #0072b2; background: #f4f8fb; padding: .8rem 1.1rem; margin: 1.4rem 0;
  font-size: 1.08rem; }
.caveats { border-left-color: #d55e00; background: #fdf6f1; font-size: .95rem; }
.caveats ul { margin: .2rem 0; padding-left: 1.2rem; }
.prose p, .prose li, figcaption { max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem .35rem 0; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; font-weight: 600; border-bottom: 2px solid #999; }
th:first-child, td:first-child { text-align: left; }
.words th, .words td { text-align: left; white-space: normal; vertical-align: top; }
figure { margin: 0 0 1.2rem; }
figure img { max-width: 100%; height: auto; }
details { margin-top: 2.4rem; font-size: .9rem; }
@media print { body { margin: 0; } figure, table { break-inside: avoid; } }
"""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Paragraphs under a title, and a list after them."""

    title: str
    paragraphs: Sequence[str]
    points: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text: `header` and `rows` as they are shown, the first column left, the others right.

    Without a title it belongs to what stands above it. One `of_words` has all columns left, in lines that wrap.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    of_words: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with a title above, if it has one, and a caption below; `alt` is for who cannot see it."""

    title: str
    image: bytes
    caption: str
    alt: str
    media_type: str = "image/svg+xml"


def render(
    *,
    title: str,
    subtitle: str,
    verdict: str,
    sentences: Sequence[str],
    caveats: Sequence[str],
    parts: Sequence[Text | Table | Picture],
    settings: Table,
) -> str:
    """A page that gives an answer, and then what it rests on.

    Args:
        title: of the page.
        subtitle: what was compared, and by which rules.
        verdict: the answer, on top.
        sentences: the answer in detail.
        caveats: what to know beside it.
        parts: words, tables and pictures in order.
        settings: folded away at the end, under its title or "Settings".

    Returns:
        HTML, with everything in it.
    """
    body = [
        heading(title, subtitle),
        f'<p class="verdict">{escape(verdict)}</p>',
        bullets(sentences),
    ]
    if caveats:
        body.append(f'<div class="verdict caveats"><strong>To know beside it</strong>{bullets(caveats)}</div>')
    body += [_part(part) for part in parts]
    body.append(f"<details><summary>{escape(settings.title or 'Settings')}</summary>{_rows(settings)}</details>")
    return document(title, body)


def document(title: str, body: Sequence[str], *, style: str = "", policy: str = "") -> str:
    """The frame of every page: style, and a policy that forbids it the network.

    Args:
        title: what the browser's tab says.
        body: pieces of HTML in order, from the functions below or made with `html.escape`.
        style: CSS beside the common one.
        policy: what the page may do beside showing pictures and styles that it holds, such as
            `script-src 'unsafe-inline'`; directives of a Content-Security-Policy.
    """
    allowed = "; ".join(filter(None, ("default-src 'none'; img-src data:; style-src 'unsafe-inline'", policy)))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def heading(title: str, subtitle: str) -> str:
    """What the page is about."""
    return f'<h1>{escape(title)}</h1>\n<p class="subtitle">{escape(subtitle)}</p>'


def bullets(sentences: Sequence[str]) -> str:
    """A list of sentences; nothing where there are none."""
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>" if sentences else ""


def text(text: Text) -> str:
    """Words in lines that are not too long to read."""
    paragraphs = "".join(f"<p>{escape(paragraph)}</p>\n" for paragraph in text.paragraphs)
    return f'<section class="prose">{_title(text.title)}{paragraphs}{bullets(text.points)}</section>'


def table(table: Table) -> str:
    """A table with its title above and its note below; it scrolls by itself where it is too wide."""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f"{_title(table.title)}{_rows(table)}{note}"


def picture(picture: Picture) -> str:
    """A picture with its title above and its caption below."""
    source = f"data:{picture.media_type};base64,{base64.b64encode(picture.image).decode()}"
    return (
        f'{_title(picture.title)}<figure><img src="{source}" alt="{escape(picture.alt)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _part(part: Text | Table | Picture) -> str:
    if isinstance(part, Text):
        return text(part)
    return table(part) if isinstance(part, Table) else picture(part)


def _title(title: str) -> str:
    return f"<h2>{escape(title)}</h2>\n" if title else ""


def _rows(table: Table) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    kind = ' class="words"' if table.of_words else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>'
