"""`hpcule reproduce METHOD NAME`: one record measured again, and how it differs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_json, add_test, positive

if TYPE_CHECKING:
    from hpcule.craft.records import RecordDocument
    from hpcule.study.folder import StudyFolder


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("reproduce", help="measure a record of docs/records.md again, and say how it differs")
    parser.add_argument("method", metavar="METHOD", help="of the record")
    parser.add_argument("name", metavar="NAME", help="of the record's data, for example cifar10")
    parser.add_argument("--data", metavar="DATA", help="where the data are (default: as the record names them)")
    add_test(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of its study (default: hpcule-runs/reproduce-METHOD-NAME)"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="start N local processes (default: 1)")
    parser.add_argument("--dry-run", action="store_true", help="estimate what it takes, and run nothing")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Craft and train as the record says, and compare; or estimate what that takes."""
    from hpcule.craft.records import find_record
    from hpcule.study.repetition import study_of_record

    record = find_record(options.method, options.name)
    config = study_of_record(record, options.data, options.test)
    if options.dry_run:
        from hpcule.cli.opened import say
        from hpcule.cli.plan import plan_here

        say(f"the record took {record['measured']['hours']:.2f} worker-hours")
        plan_here(config, options.workers or 1, as_json=options.json)
        return
    from hpcule.cli.study import run_here

    options.out = options.out or Path("hpcule-runs") / f"reproduce-{options.method}-{options.name}"
    run_here(config, options, lambda folder: _compare(record, folder, as_json=options.json))


def _compare(record: RecordDocument, folder: StudyFolder, *, as_json: bool) -> None:
    from hpcule.cli.opened import show
    from hpcule.report.repetition import print_repetition
    from hpcule.study.collect import rows, write_rows
    from hpcule.study.grid import expand
    from hpcule.study.repetition import repetition

    config = folder.config()
    cells, *_ = write_rows(rows(folder, expand(config, folder.samples())), folder.path)
    found = repetition(record, config, cells)
    if as_json:
        print(json.dumps(found))
        return
    print_repetition(found)
    show(f"Cells: {cells}")
