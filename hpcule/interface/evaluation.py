"""`hpcule.evaluate`: the protection report."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, cast

from hpcule.config.errors import UsageError

if TYPE_CHECKING:
    from pandas import DataFrame

    from hpcule.config.tree import Tree
    from hpcule.evaluation.results import ProtectionDocument, WorstCaseDocument
    from hpcule.interface.handover import Data, Labels
    from hpcule.interface.process import Progress
    from hpcule.interface.stores import Store

Suite = Literal["quick", "standard", "clinic", "sizes", "full"]


@dataclass(frozen=True)
class Report:
    """The protection that victims measured. A notebook shows its page.

    Attributes:
        results: what results.json holds; accuracies are shares in [0, 1] of the clean test samples.
        html: the report as a text of HTML that needs no other file; it shows clean images, so keep it private.
        path: the folder with results.json and report.html; None where no `out` was given.
    """

    results: ProtectionDocument = field(repr=False)
    html: str = field(repr=False)
    path: Path | None

    @property
    def worst_case(self) -> WorstCaseDocument:
        """The recipe that learns most from the protected samples: its name, and what it reaches as `protected`."""
        return self.results["worst_case"]

    def table(self) -> DataFrame:
        """One row for each trained network.

        Columns: `recipe`; `set` (clean, noise, spectrum: noise with the store's spectrum, protected, or part:
        the clean part of a mixture); `seed`; `measure`, the name of the headline: accuracy, or balanced accuracy where
        the classes are so unequal that always naming the largest would pass for learning; `last`, its value after the
        last epoch, and `best`, at the epoch `best_epoch` that was best, both on the clean test samples; `accuracy`,
        `balanced_accuracy` and `area` (under the ROC curve), whichever the headline is, after the last epoch, None
        where they were not measured; `train_accuracy` on the training set as published; `steps`; `seconds`; `valid`,
        whether the recipe's clean control learnt anything.

        Raises:
            UsageError: pandas is not installed.
        """
        from hpcule.interface.frames import frame
        from hpcule.measure.accuracy import ACCURACY, AREA, BALANCED

        return frame(
            [
                {
                    "recipe": recipe["name"],
                    "set": trained["set"],
                    "seed": victim["seed"],
                    "measure": recipe["measure"],
                    "last": victim["last"],
                    "best": victim["best"],
                    "best_epoch": victim["best_epoch"],
                    "accuracy": victim["measures"].get(ACCURACY),
                    "balanced_accuracy": victim["measures"].get(BALANCED),
                    "area": victim["measures"].get(AREA),
                    "train_accuracy": victim["train_last"],
                    "steps": victim["steps"],
                    "seconds": victim["seconds"],
                    "valid": "invalid_because" not in recipe,
                }
                for recipe in self.results["recipes"]
                for trained in recipe["sets"]
                for victim in trained["seeds"]
            ]
        )

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" title="protection report" '
            'style="width: 100%; height: 40em; border: 0"></iframe>'
        )


def evaluate(
    store: str | Path | Store,
    *,
    data: Data,
    labels: Labels | None = None,
    test: Data | None = None,
    test_labels: Labels | None = None,
    suite: Suite = "quick",
    out: str | Path | None = None,
    workers: int = 1,
    key: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    **own_settings: object,
) -> Report:
    """Train victims on the protected samples, on clean ones and on random noise, as `hpcule evaluate` does.

    Args:
        store: a complete store, or its folder.
        data: the clean samples that it was made for, as in `hpcule.craft`, with labels.
        labels: of arrays.
        test: clean test samples; None: the test split of `data`.
        test_labels: of arrays.
        suite: "quick": 6 recipes, one seed; "standard": 11 recipes, 3 seeds; "clinic": 13 recipes of trainers of
            medical images, 3 seeds; "sizes": 2 recipes, one on a trained encoder, each with images read at up to
            4 sizes, 3 seeds; "full": 51 recipes, 5 seeds; the last two have 2 more for more than 8 bits.
        out: folder for results.json, report.html, and a file for each victim, so that a second call trains only what is
            missing; None: nothing is kept on disk.
        workers: number of processes on this machine, which share the victims.
        key: where the key of an encrypted store is.
        settings: settings by their dotted names, {"victim.epochs": 20, "world.threads": 1}.
        progress: called with a stage, the steps that are done, and all its steps; None: they go to the logger `hpcule`,
            which also states the number of victims, about how long they take, and what is left, at INFO and DEBUG.
        own_settings: settings without a dot: `recipes=["plain", "crop-flip"]`, `seeds=[0, 1, 2]`, `samples=5000`.

    Raises:
        UsageError: an unknown suite, setting, recipe or network, or a value out of range.
        DataError: the data cannot be read or have no labels, or the test samples do not fit them.
        StoreError: the store is damaged, not complete, or made for other samples.
        WorkerError: a worker process failed.
    """
    from hpcule.config.tree import unknown
    from hpcule.evaluation.suites import SUITES
    from hpcule.interface.handover import handed_over
    from hpcule.interface.settings import nested
    from hpcule.interface.stores import Store, open_store
    from hpcule.store.files import require_own_results

    if workers < 1:
        raise UsageError(f"workers={workers}: at least 1")
    if suite not in SUITES:
        raise UsageError(unknown("suite", str(suite), SUITES))
    if test is None and test_labels is not None:
        raise UsageError("test_labels without test: give the test images too")
    if test is None and not isinstance(data, str | Path):
        raise UsageError("arrays and data sets have no test split: give test=, and test_labels= for arrays")
    tree = nested({**(settings or {}), **own_settings})
    opened = store if isinstance(store, Store) else open_store(store, key=key)
    with ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(TemporaryDirectory(prefix="hpcule-")))
        require_own_results(folder)
        train = stack.enter_context(handed_over(data, labels))
        testing = None if test is None else stack.enter_context(handed_over(test, test_labels, "test"))
        if workers == 1:
            _here(opened, train, testing, suite, tree, folder, progress)
        else:
            _in_workers(opened, train, testing, suite, tree, folder, workers, progress)
        results = cast("ProtectionDocument", json.loads((folder / "results.json").read_text()))
        page = (folder / "report.html").read_text()
    return Report(results, page, None if out is None else folder)


def _here(
    store: Store, data: str, test: str | None, suite: Suite, tree: Tree, out: Path, progress: Progress | None
) -> None:
    from hpcule.data.check import check_same_task
    from hpcule.evaluation.bench import Bench
    from hpcule.evaluation.evaluate import evaluate as run
    from hpcule.evaluation.suites import suite_config
    from hpcule.interface.process import log, note_progress, one_worker
    from hpcule.report.estimates import planned, remaining
    from hpcule.report.protection import write_evaluation
    from hpcule.store.read import StoreReader

    with StoreReader(store.vault) as reader:
        opening = reader.manifest.opening
        source, clean_test = opening.source(data), opening.test(data, test)
        check_same_task(source, clean_test)
        config = suite_config(suite, source, tree)
        with one_worker(config.world) as world:

            def plan(victims: int, seconds: float) -> None:
                log.info("%s", planned(config, victims, seconds))

            def left(done: int, total: int, seconds: float) -> None:
                log.debug("%s", remaining(done, total, seconds, 1))

            bench = Bench(
                store=reader,
                source=source,
                test=clean_test,
                out=out,
                world=world,
                report=note_progress(progress),
                plan=plan,
                left=left,
            )
            results, pictures = run(config, bench)
        write_evaluation(out, config, results, pictures)


def _in_workers(
    store: Store,
    data: str,
    test: str | None,
    suite: Suite,
    tree: Tree,
    out: Path,
    workers: int,
    progress: Progress | None,
) -> None:
    from hpcule.config.tree import dump_yaml
    from hpcule.interface.process import run_command

    with TemporaryDirectory(prefix="hpcule-") as folder:
        (file := Path(folder, "settings.yaml")).write_text(dump_yaml(tree))
        arguments = ["evaluate", str(store.path), f"--data={data}", f"--suite={suite}", f"--out={out}"]
        arguments += [f"--config={file}"]
        arguments += [f"--test={test}"] if test is not None else []
        arguments += [f"--key={store.key}"] if store.key is not None else []
        run_command(arguments, workers, progress)
