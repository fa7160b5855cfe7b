"""A table as GitHub's Markdown and as LaTeX, whatever is in its cells."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Plain text; the first column is words, the others are numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


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


def markdown(table: Table, number: int) -> str:
    """Return a table as Markdown; the number goes before its caption."""

    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(_escape_markdown(cell) for cell in cells)} |"

    rule = f"|---|{'---:|' * (len(table.head) - 1)}"
    title = f"**Table {number}. {_escape_markdown(table.caption)}**"
    notes = [f"{_escape_markdown(note)}\n" for note in table.notes]
    body = [line(row) for row in table.rows]
    return "\n".join([title, "", line(table.head), rule, *body, "", *notes])


def latex(table: Table) -> str:
    """Return a table as LaTeX, which needs the packages booktabs and longtable."""

    def line(cells: tuple[str, ...]) -> str:
        return f"{' & '.join(_escape_latex(cell) for cell in cells)} \\\\"

    head = ["\\toprule", line(table.head), "\\midrule"]
    lines = [
        f"\\begin{{longtable}}{{l{'r' * (len(table.head) - 1)}}}",
        f"\\caption{{{_escape_latex(table.caption)}}} \\\\",
        *(*head, "\\endfirsthead"),
        *(*head, "\\endhead"),
        *("\\bottomrule", "\\endfoot"),
        *(line(row) for row in table.rows),
        "\\end{longtable}",
    ]
    if table.notes:
        lines.append(f"{{\\footnotesize\\noindent {_escape_latex(' '.join(table.notes))}\\par}}")
    return "\n".join(lines) + "\n"


def _escape_markdown(text: str) -> str:
    """Escape what Markdown would read; it leaves an underscore inside a word alone."""
    escaped = re.sub(r"[\\|*`<\[$~]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", r"\\\g<0>", text)
    return " ".join(escaped.split())


def _escape_latex(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
