"""Write an explorer: one HTML file with all it needs, which asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from string import Template

from fmvae.explore.content import Subject, content_of
from fmvae.runs.files import write_bytes

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("decoder.js", "state.js", "pictures.js", "map.js", "controls.js", "explorer.js")
log = logging.getLogger("fmvae")


def write_explorer(path: Path, subjects: Sequence[Subject], left_out: Sequence[tuple[str, str]] = ()) -> Path:
    """Write the explorer of trained runs.

    Args:
        path: of the file.
        left_out: as for ``content_of``.

    Raises:
        RunError: a run cannot be explored.
    """
    write_bytes(path, page_of(subjects, left_out).encode())
    log.info("explorer: %s, %.1f MB", path, path.stat().st_size / 1e6)
    return path


def page_of(subjects: Sequence[Subject], left_out: Sequence[tuple[str, str]] = ()) -> str:
    """Return the page as text."""
    content, blob = content_of(subjects, left_out)
    style, script = _asset("explorer.css"), '"use strict";\n' + "\n".join(map(_asset, SCRIPTS))
    title = subjects[0].name if len(subjects) == 1 else f"{len(subjects)} runs side by side"
    return Template(_asset("page.html")).substitute(
        title=html.escape(title),
        style=style,
        script=script,
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        data=_json(content),
        blob=blob.base64(),
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what the page's policy calls this script or style, so that no other one runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(content: object) -> str:
    """Return JSON for a script element, which any ``</script`` in it would end."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
