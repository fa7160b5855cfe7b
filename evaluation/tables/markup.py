"""A table as GitHub's Markdown and as LaTeX, whatever is in its cells."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from volumes.text import one_line


@dataclass(frozen=True)
class Table:
    """Plain text; the first column is words, the others are numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of_columns(
        cls, caption: str, columns: Iterable[tuple[str, Sequence[str]]], *notes: str
    ) -> Self:
        """Return a table of columns, each with its head and as many cells as the others."""
        head, cells = zip(*columns, strict=True)
        return cls(caption, head, tuple(zip(*cells, strict=True)), notes)


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "{}$&#_%"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "[": "{[}",  # after a line's end it would begin an argument
        "±": r"$\pm$",
        "·": r"$\cdot$",
        "†": r"$^{\dagger}$",
    }
)
# What begins markup, and what makes an address a link.
_MARKDOWN = re.compile(
    r"[\\|*`<&\[$~]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|:(?=//)|(?<=www)\.", re.IGNORECASE
)


def markdown_table(
    head: Sequence[str], rows: Iterable[Iterable[object]], words: Collection[int] = (0,)
) -> str:
    """Return a table as Markdown, without a caption and without a last line's end.

    Cells are Markdown already, see `in_markdown`. words: the columns that are words; the others
    are numbers.
    """
    rule = "|".join("---" if column in words else "---:" for column in range(len(head)))
    return "\n".join([markdown_row(head), f"|{rule}|", *map(markdown_row, rows)])


def markdown_row(cells: Iterable[object]) -> str:
    """Return a row of such a table."""
    return f"| {' | '.join(map(str, cells))} |"


def markdown(table: Table, number: int) -> str:
    """Return a table as Markdown; the number goes before its caption."""
    head, *body = (tuple(map(in_markdown, cells)) for cells in (table.head, *table.rows))
    title = f"**Table {number}. {in_markdown(table.caption)}**"
    notes = [f"{in_markdown(note)}\n" for note in table.notes]
    return "\n".join([title, "", markdown_table(head, body), "", *notes])


LATEX_HEAD = "% needs \\usepackage{booktabs,longtable}\n"  # of a file with such tables


def latex(table: Table) -> str:
    """Return a table as LaTeX, which needs the packages booktabs and longtable."""

    def line(cells: tuple[str, ...]) -> str:
        return f"{' & '.join(in_latex(cell) for cell in cells)} \\\\"

    head = ["\\toprule", line(table.head), "\\midrule"]
    lines = [
        f"\\begin{{longtable}}{{l{'r' * (len(table.head) - 1)}}}",
        f"\\caption{{{in_latex(table.caption)}}} \\\\",
        *(*head, "\\endfirsthead"),
        *(*head, "\\endhead"),
        *("\\bottomrule", "\\endfoot"),
        *(line(row) for row in table.rows),
        "\\end{longtable}",
    ]
    if table.notes:
        lines.append(f"{{\\footnotesize\\noindent {in_latex(' '.join(table.notes))}\\par}}")
    return "\n".join(lines) + "\n"


def in_markdown(text: str) -> str:
    """Return words of others as Markdown that shows them, and links to nothing.

    An underscore inside a word stays.
    """
    line = " ".join(one_line(text).split())
    return _MARKDOWN.sub(r"\\\g<0>", line)


def in_latex(text: str) -> str:
    """Return words of others as LaTeX that shows them."""
    return " ".join(one_line(text).split()).translate(_LATEX)
