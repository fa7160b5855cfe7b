"""The HTML file itself: one template, filled with styles, scripts and data.

Whatever a submission printed or called itself reaches the page as data: JSON in which no `<` is
left, or base64. The page's policy allows no script but its own two, by their hashes, and no
address but its own.
"""

import base64
import hashlib
import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.report.modules import inlined
from evaluation.report.overlays import Overlay
from evaluation.report.parts import Part, zipped

ASSETS = Path(__file__).parent / "assets"
NIIVUE = ASSETS / "niivue"


def html(overview: dict[str, Any], parts: Sequence[Part]) -> str:
    """Return the page. overview: what concerns all teams, with a `title`; parts: the teams."""
    style = (ASSETS / "style.css").read_text(encoding="utf-8")
    script = inlined(ASSETS / "main.js")
    niivue = (NIIVUE / "niivue.umd.js").read_text(encoding="utf-8")
    data = overview | {
        "teams": [part.summary | {"overlays": list(map(_listed, part.overlays))} for part in parts],
        "licences": (NIIVUE / "LICENSES.txt").read_text(encoding="utf-8"),
    }
    blocks = [_block(f"team-{i}", part.details) for i, part in enumerate(parts)]
    for i, part in enumerate(parts):
        for j, overlay in enumerate(part.overlays):
            blocks.append(_block(f"overlay-{i}-{j}", base64.b64encode(overlay.webp).decode()))
    blocks.append(_block("viewer-script", zipped(niivue.encode())))
    template = string.Template((ASSETS / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        policy=_policy(style, [script, niivue]),
        style=style,
        overview=_json(data),
        blocks="\n".join(blocks),
        script=script,
    )


def _policy(style: str, scripts: Sequence[str]) -> str:
    sources = {
        "default-src": "'none'",
        "script-src": " ".join(_hash(script) for script in scripts),
        "style-src": _hash(style),
        "img-src": "data: blob:",
        "connect-src": "'self'",  # scans that lie beside a page that is served
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{directive} {source}" for directive, source in sources.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _listed(overlay: Overlay) -> dict[str, object]:
    return {name: value for name, value in vars(overlay).items() if name != "webp"}


def _json(data: object) -> str:
    """Return JSON that can end no <script> and begin no comment in it."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _block(name: str, content: str) -> str:
    return f'<script type="text/plain" id="{name}">{content}</script>'
