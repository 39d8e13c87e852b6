"""A table of text, written as Markdown or as LaTeX; a cell may hold several lines."""

import re
from typing import NamedTuple

from bench.text import escape, markdown_table, one_line

SYMBOLS = {symbol: f"\\{symbol}" for symbol in "&%$#_{}"} | {
    symbol: f"\\text{name}{{}}"
    for symbol, name in zip(
        "\\~^<>|\"'`",
        [
            "backslash",
            "asciitilde",
            "asciicircum",
            "less",
            "greater",
            "bar",
            "quotedbl",
            "quotesingle",
            "asciigrave",
        ],
        strict=True,
    )
}
SYMBOLS |= {"[": "{[}", "]": "{]}", "-": "{-}", "–": "--", "…": r"\ldots{}"}
SYMBOLS |= {"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$"}
# The table is as wide and as high as it is, or as the page where that is less.
DOCUMENT = r"""%% Compiles as it is; for a paper take what lies between \begin{table} and \end{table}. Needs booktabs and graphicx.
\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage[a4paper,landscape,margin=1cm]{geometry}
\usepackage{booktabs,graphicx}
\pagestyle{empty}
\begin{document}
\begin{table}
\centering
\caption{%(title)s}
\resizebox*{!}{\ifdim\totalheight>0.85\textheight 0.85\textheight\else\totalheight\fi}{%%
\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%%
\begin{tabular}{%(kinds)s}
\toprule
%(head)s
\midrule
%(body)s
\bottomrule
\end{tabular}}}%(notes)s
\end{table}
\end{document}
"""


class Grid(NamedTuple):
    """Plain text in rows and columns; the last `numeric` columns are set to the right."""

    title: str
    header: list[str]
    rows: list[list[str]]
    numeric: int
    notes: str = ""


def to_markdown(grid: Grid) -> str:
    """Return the table and its notes, without the title."""
    cells = [
        ["<br>".join(map(escape, cell.split("\n"))) for cell in line] for line in (grid.header, *grid.rows)
    ]
    notes = f"\n{escape(grid.notes)}\n" if grid.notes else ""
    return markdown_table(cells[0], cells[1:], grid.numeric) + notes


def to_latex(grid: Grid) -> str:
    """Return a whole document that holds the table, its title and its notes."""
    kinds = "l" * (len(grid.header) - grid.numeric) + "r" * grid.numeric
    head, *body = [" & ".join(map(_cell, line, kinds)) + r" \\" for line in (grid.header, *grid.rows)]
    several = any("\n" in cell for line in grid.rows for cell in line)
    return DOCUMENT % {
        "title": latex(grid.title),
        "kinds": kinds,
        "head": head,
        "body": ("\n\\addlinespace\n" if several else "\n").join(body),
        "notes": f"\n\\par\\smallskip\\footnotesize {latex(grid.notes)}" if grid.notes else "",
    }


def _cell(text: str, kind: str) -> str:
    lines = [latex(line) for line in text.split("\n")]
    if len(lines) == 1:
        return lines[0]
    return rf"\begin{{tabular}}[t]{{@{{}}{kind}@{{}}}}" + r" \\ ".join(lines) + r"\end{tabular}"


def latex(text: str) -> str:
    """Return the text as LaTeX that shows it literally; a letter that pdfLaTeX's fonts lack is shown as its code point."""
    return "".join(
        SYMBOLS.get(letter)
        or (letter if letter.isascii() or re.match("[À-ÿ]", letter) else f"[U+{ord(letter):04X}]")
        for letter in one_line(text)
    )
