"""Writes docs/reference/: every option of every command, read from the commands' own parsers.

`python docs/generate.py`, from the project's root; `make docs` does so. A test compares what is
committed with what this would write.
"""

import argparse
import importlib
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Written by docs/generate.py from the commands' own parsers: change those. -->"

# A page's title, and the commands on it: a module, and for some a word after it.
PAGES = {
    "app": ("Segmenting: app", ("app",)),
    "evaluation": (
        "Judging: evaluation",
        (
            *("evaluation run", "evaluation score", "evaluation bench", "evaluation batch"),
            *("evaluation rank", "evaluation report"),
            *("evaluation.batch.scheduler", "evaluation.batch.worker"),
        ),
    ),
    "training": (
        "Training: training",
        (
            *("training.export", "training.recipes", "training.crops", "training.prepare"),
            *("training.train", "training.lesion_filter", "training.card"),
        ),
    ),
    "benchmarks": (
        "Measuring: examples and benchmarks",
        (
            *("examples.demo", "benchmarks.against_nnunet", "benchmarks.sizes"),
            *("benchmarks.budgets", "benchmarks.start_up", "benchmarks.shortcuts"),
            *("benchmarks.scoring", "benchmarks.harness_overhead", "benchmarks.ranking"),
            *("benchmarks.scheduling", "benchmarks.same", "benchmarks.pack", "benchmarks.memory"),
            *("benchmarks.mutants", "benchmarks.public_plans"),
        ),
    ),
}


class _Parsed(BaseException):
    """Carries the parser that a command was about to use."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of `python -m command`, which does not run."""

    def caught(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Parsed(parser)

    name, *words = command.split()
    is_file = (ROOT / f"{name.replace('.', '/')}.py").is_file()
    module = importlib.import_module(name if is_file else f"{name}.__main__")
    with (
        patch.object(argparse.ArgumentParser, "parse_args", caught),
        patch.object(sys, "argv", [name, *words]),
    ):
        try:
            module.main()
        except _Parsed as found:
            parser: argparse.ArgumentParser = found.args[0]
            return _subparser(parser, words)
    raise ValueError(f"{name}: its main() parses no arguments")


def _subparser(parser: argparse.ArgumentParser, words: list[str]) -> argparse.ArgumentParser:
    for word in words:
        (choice,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        parser = choice.choices[word]
    return parser


def page(name: str) -> str:
    """Return a page of the reference in Markdown."""
    title, commands = PAGES[name]
    return "\n".join([NOTE, "", f"# {title}", "", *(_section(command) for command in commands)])


def _section(command: str) -> str:
    parser = parser_of(command)
    lines = [f"## python -m {command}", ""]
    if parser.description:
        lines += [parser.description.strip(), ""]
    for group in parser._mutually_exclusive_groups:
        names = ", ".join(f"`{action.option_strings[0]}`" for action in group._group_actions)
        lines += [f"{'Exactly' if group.required else 'At most'} one of {names}.", ""]
    lines += [_item(action) for action in parser._actions if action.dest != "help"]
    return "\n".join([*lines, ""])


def _item(action: argparse.Action) -> str:
    words = " ".join([*action.option_strings[-1:], *_values(action)])
    said = [(action.help or "") % {**vars(action), "default": _text(action.default)}]
    if action.choices is not None:
        said.append(f"one of {', '.join(f'`{choice}`' for choice in action.choices)}")
    if action.required and action.option_strings:
        said.append("required")
    elif not _is_said(action.default, said[0]):
        said.append(f"default `{_text(action.default)}`")
    return f"- `{words}`: {'; '.join(part for part in said if part)}".removesuffix(": ")


def _is_said(default: object, text: str) -> bool:
    """Whether there is no default, or the help names it: "(default 3)", "(3)", "(up to 4)"."""
    nothing = default in (None, False, argparse.SUPPRESS) or _text(default) == ""
    return nothing or bool(re.search(rf"default|\({re.escape(_text(default))}\)|\(up to ", text))


def _values(action: argparse.Action) -> Iterator[str]:
    """The words that stand for an option's values."""
    if action.nargs == 0:
        return
    name = action.metavar or (action.dest.upper() if action.choices is None else "CHOICE")
    if isinstance(name, tuple):
        yield from name
        return
    yield {"+": f"{name} ...", "*": f"[{name} ...]", "?": f"[{name}]"}.get(str(action.nargs), name)


def _text(value: object) -> str:
    """A default value; nothing in it is of the machine or the Python that writes this."""
    if isinstance(value, (list, tuple)):
        return " ".join(_text(one) for one in value)
    if value == ".".join(platform.python_version_tuple()[:2]):
        return "that of this Python"
    return str(value).removeprefix(f"{ROOT}/")


def main() -> int:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name in PAGES:
        (REFERENCE / f"{name}.md").write_text(page(name))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
