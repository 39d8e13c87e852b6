"""A table of text, written as Markdown or as LaTeX; a cell may hold several lines."""

import re
from typing import NamedTuple

from bench.text import escape, markdown_table, one_line

SYMBOLS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": "{-}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "–": "--",
    "…": r"\ldots{}",
}
DOCUMENT = r"""% Compiles as it is; for a paper take what lies between \begin{table} and \end{table}. Needs booktabs and graphicx.
\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage[a4paper,landscape,margin=1cm]{geometry}
\usepackage{booktabs,graphicx}
\pagestyle{empty}
\begin{document}
%s
\end{document}
"""
# As wide and as high as it is, or as the page where that is less.
FIT = (
    r"\resizebox*{!}{\ifdim\totalheight>0.85\textheight 0.85\textheight\else\totalheight\fi}{%" + "\n"
    r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"
)


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
    kinds = ["l"] * (len(grid.header) - grid.numeric) + ["r"] * grid.numeric
    head, *body = [" & ".join(map(_cell, line, kinds)) + r" \\" for line in (grid.header, *grid.rows)]
    between = "\n\\addlinespace\n".join(body).split("\n") if any("tabular" in line for line in body) else body
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(grid.title)}}}",
        FIT,
        rf"\begin{{tabular}}{{{''.join(kinds)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *between,
        r"\bottomrule",
        r"\end{tabular}}}",
    ]
    lines += [rf"\par\smallskip\footnotesize {latex(grid.notes)}"] if grid.notes else []
    return DOCUMENT.replace("%s", "\n".join([*lines, r"\end{table}"]), 1)


def _cell(text: str, kind: str) -> str:
    lines = [latex(line) for line in text.split("\n")]
    return (
        lines[0]
        if len(lines) == 1
        else rf"\begin{{tabular}}[t]{{@{{}}{kind}@{{}}}}" + r" \\ ".join(lines) + r"\end{tabular}"
    )


def latex(text: str) -> str:
    """Return the text as LaTeX that shows it literally; a letter that pdfLaTeX's fonts lack is shown as its code point."""
    return "".join(
        SYMBOLS.get(letter)
        or (letter if letter.isascii() or re.match("[À-ÿ]", letter) else f"[U+{ord(letter):04X}]")
        for letter in one_line(text)
    )
