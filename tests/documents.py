"""Whether a document is what its type says once it is JSON; mypy holds only what the code says of it."""

from __future__ import annotations

import json
from typing import Any

from hpcule.config import documents


def mismatches(document: Any, expected: Any) -> list[str]:
    """Places where a document, as its JSON holds it, differs from its type."""
    return documents.mismatches(json.loads(json.dumps(document)), expected)
