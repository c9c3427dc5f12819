"""One rank of a craft that counts what it asks of the file system and sends, once the ranks are connected.

`processes.py` starts it:  python bench/ranks/rank.py COUNTS FOLDER:FOLDER craft pil --data DATA --out STORE
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from counting import Counting
from messages import count_messages

from hpcule.cli import workers
from hpcule.cli.main import run
from hpcule.world import group


def main() -> None:
    """Run the command; leave the counts in COUNTS-RANK.json."""
    counts, folders, *arguments = sys.argv[1:]
    sent, counting = count_messages(), Counting([])
    target = Path(f"{counts}-{os.environ['RANK']}.json")
    # Sums through memory would hide what ranks of several nodes send.
    vars(group)["share_memory"] = lambda *about: None

    @contextmanager
    def counted(*about: Any, **named: Any) -> Iterator[Any]:
        with group.connected(*about, **named) as world:
            sent.clear()
            counting.take([Path(folder) for folder in folders.split(":")])
            yield world
            target.write_text(json.dumps({**counting.of(0), "messages": sent["messages"], "bytes": sent["bytes"]}))

    vars(workers)["connected"] = counted
    sys.argv = ["hpcule", *arguments]
    run()


if __name__ == "__main__":
    main()
