"""Names for what depends on many values: one short digest of all of them."""

from __future__ import annotations

import hashlib
import json


def digest(*parts: object) -> str:
    """Return sixteen hexadecimal digits that stand for plain values, such as numbers, texts, lists and mappings."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
