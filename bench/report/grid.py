"""A table of text, written as Markdown, LaTeX or CSV."""

import re
from typing import NamedTuple

from bench.text import escape, markdown_table, one_line

NAMES = [
    "backslash",
    "asciitilde",
    "asciicircum",
    "less",
    "greater",
    "bar",
    "quotedbl",
    "quotesingle",
    "asciigrave",
]
SYMBOLS: dict[str, str | int | None] = {
    **{symbol: f"\\{symbol}" for symbol in "&%$#_{}"},
    **{symbol: f"\\text{name}{{}}" for symbol, name in zip("\\~^<>|\"'`", NAMES, strict=True)},
    **{"[": "{[}", "]": "{]}", "-": "{-}", "–": "--", "…": r"\ldots{}", "†": r"\dag{}"},
    **{"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$"},
}
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
    """Plain text in rows and columns; the last `numeric` columns are set to the right. A column's head may have several lines."""

    title: str
    header: list[str]
    rows: list[list[str]]
    numeric: int
    notes: str = ""


def to_markdown(grid: Grid) -> str:
    """Return the table and its notes, without the title."""
    header = ["<br>".join(map(escape, head.split("\n"))) for head in grid.header]
    notes = f"\n{escape(grid.notes)}\n" if grid.notes else ""
    return markdown_table(header, [[escape(cell) for cell in row] for row in grid.rows], grid.numeric) + notes


def to_latex(grid: Grid) -> str:
    """Return a whole document that holds the table, its title and its notes."""
    kinds = "l" * (len(grid.header) - grid.numeric) + "r" * grid.numeric
    heads = [r" \\ ".join(map(latex, head.split("\n"))) for head in grid.header]
    head = [rf"\shortstack[{kind}]{{{text}}}" for kind, text in zip(kinds, heads, strict=True)]
    return DOCUMENT % {
        "title": latex(grid.title),
        "kinds": kinds,
        "head": " & ".join(head) + r" \\",
        "body": "\n".join(" & ".join(map(latex, row)) + r" \\" for row in grid.rows),
        "notes": f"\n\\par\\smallskip\\footnotesize {latex(grid.notes)}" if grid.notes else "",
    }


def latex(text: str) -> str:
    """Return the text as LaTeX that shows it literally; a letter that pdfLaTeX's fonts lack is shown as its code point."""
    shown = one_line(text).translate(str.maketrans(SYMBOLS))
    return re.sub("[^\x00-\x7fÀ-ÿ]", lambda letter: f"[U+{ord(letter[0]):04X}]", shown)
