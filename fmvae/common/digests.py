"""Digests of JSON values. Equal values have the same canonical JSON, and so the same SHA-256."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON of a value: sorted keys, no spaces, and 1.0 written as 1."""

    def plain(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {str(key): plain(child) for key, child in node.items()}
        if isinstance(node, list | tuple):
            return [plain(child) for child in node]
        return int(node) if isinstance(node, float) and node.is_integer() else node

    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
