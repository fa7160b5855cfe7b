"""Puts JavaScript modules into one script, as a page that loads nothing needs them.

Each module becomes a function of its own that returns what it exports, so that names stay apart.
The modules keep to `import { a, b } from "./file.js";` and to `export` before `function`, `const`
or `class`: they also run unchanged from their own files.
"""

import re
from pathlib import Path

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)


def inlined(entry: Path) -> str:
    """Return a script that does what the module `entry` does, with all that it imports.

    Raises ValueError when modules import each other, or in a way that is not understood.
    """
    order: dict[str, str] = {}
    _add(entry, order, ())
    return '"use strict";\n' + "".join(order.values())


def _add(path: Path, order: dict[str, str], importers: tuple[str, ...]) -> None:
    name = path.stem
    if name in importers:
        raise ValueError(f"{path}: imports itself, by way of {', '.join(importers)}")
    if name in order:
        return
    text = path.read_text(encoding="utf-8")
    for found in IMPORT.finditer(text):
        _add(path.with_name(f"{found[2]}.js"), order, (*importers, name))
    names = [found[2] for found in EXPORT.finditer(text)]
    body = IMPORT.sub(r"const {\1} = module_\2;\n", EXPORT.sub(r"\1 \2", text))
    if left := re.search(r"^(import|export)\b.*", body, re.MULTILINE):
        raise ValueError(f"{path}: not understood: {left[0]}")
    order[name] = (
        f"const module_{name} = (() => {{\n{body}return {{ {', '.join(names)} }};\n}})();\n"
    )
