"""Probes of a store's networks for people: certificate, Unlearnable Distance and recovery attack.

Each is a table in a terminal, a self-contained HTML page, and a panel of the store's protection report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from hpcule.config.errors import UsageError
from hpcule.evaluation.results import percent
from hpcule.report.charts import Series, series_chart
from hpcule.report.page import environment
from hpcule.report.terminal import plain_console, titled_table
from hpcule.store.files import read_json, sha256_file, write_atomically
from hpcule.store.read import StoreReader
from hpcule.store.vault import MANIFEST

LABELS = {"clean": "clean control", "protected": "protected"}
WIDTH = 100
TELLING = 0.05
"""Least accuracy beyond chance that a clean control is certified to; below it the noise alone keeps every bound low."""
FEW = 2
"""Fewest clean layers above the threshold for the distance to rest on more than one of them."""

ProbeResults = Mapping[str, Any]
"""The results.json of `hpcule certify`, `distance` or `recover`."""


@dataclass(frozen=True)
class ProbePanel:
    """A section of the protection report: a template and what it shows, with `title`, `warnings` and `claims`."""

    template: str
    context: dict[str, Any]


def write_probe(results: ProbeResults, path: Path) -> None:
    """Write the page of a probe, readable by its owner alone.

    Raises:
        StoreError: it cannot be written.
    """
    kind = results["kind"]
    text = environment().get_template(f"{kind}.html.j2").render(CONTEXTS[kind](results))
    write_atomically(path, text.encode())


def panels(probes: Sequence[ProbeResults]) -> list[ProbePanel]:
    """A panel for each of the probes, in the order of `CONTEXTS`."""
    return [
        ProbePanel(f"{kind}_panel.html.j2", context(results))
        for kind, context in CONTEXTS.items()
        for results in probes
        if results["kind"] == kind
    ]


def read_probes(folders: Sequence[Path], store: StoreReader) -> list[ProbeResults]:
    """The results in the folders that probes of this store have written.

    Raises:
        UsageError: a folder holds none, or they are of another store.
    """
    return [_read(folder, sha256_file(store.path / MANIFEST)) for folder in folders]


def _read(folder: Path, store: str) -> ProbeResults:
    path, valid = folder / "results.json", "name an output folder of hpcule certify, distance or recover"
    try:
        results = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--with {folder}: {path} cannot be read ({error}); {valid}") from None
    if results.get("kind") not in CONTEXTS:
        raise UsageError(f"--with {folder}: holds results of kind {results.get('kind')!r}; {valid}")
    if results.get("store") != store:
        raise UsageError(f"--with {folder}: was measured on another store, or on this one before it changed")
    return results


def print_certificate(results: ProbeResults) -> None:
    """Print the bounds, and what must be read with them."""
    console = plain_console(WIDTH)
    table = titled_table("Certified accuracy at most, by the length of a move of all weights")
    for heading in ("", "unmoved", *(f"{eta:g}" for eta in results["settings"]["etas"])):
        table.add_column(heading, justify="right" if heading else "left")
    for basis, label in LABELS.items():
        found = results[basis]
        cells = ["none" if bound["accuracy"] is None else percent(bound["accuracy"]) for bound in found["bounds"]]
        table.add_row(label, percent(found["quantile"]), *cells)
    console.print(table)
    for paragraph in [*certificate_warnings(results), certificate_reading(results)]:
        console.print(f"\n{paragraph}")


def _certificate_context(results: ProbeResults) -> dict[str, Any]:
    return _page_context(
        results,
        "Certificate",
        chart=Markup(_certificate_chart(results)),
        warnings=certificate_warnings(results),
        claims=[certificate_reading(results), *certificate_claims(results)],
    )


def certificate_reading(results: ProbeResults) -> str:
    """What the bounds say."""
    settings, test = results["settings"], results["data"]["test"]
    return (
        f"With Gaussian noise of deviation {settings['deviation']:g} on every weight of these networks, and of "
        f"networks whose weights all together differ from them by at most the length shown, at least "
        f"{percent(settings['quantile'])} of the draws recognise no more than the bound of the {test:,} clean test "
        f"samples. All bounds hold together with {percent(1 - settings['alpha'])} confidence over "
        f"{settings['draws']:,} draws."
    )


def certificate_warnings(results: ProbeResults) -> list[str]:
    """What stands in the way of the figures."""
    paragraphs, settings = _not_learnt(results, " without noise"), results["settings"]
    chance, clean = results["data"]["chance"], results["clean"]
    if not paragraphs and clean["quantile"] < chance + TELLING:
        paragraphs.append(
            f"These bounds say nothing about the protection: under this noise the network on clean samples is at "
            f"{percent(clean['quantile'])} too, chance is {percent(chance)}. Take a smaller deviation, or train with "
            "noise on the weights (victim.weight_noise)."
        )
    if settings["victim"]["weight_noise"] < settings["deviation"]:
        paragraphs.append(
            f"The networks were trained with noise of {settings['victim']['weight_noise']:g} on their weights and "
            f"certified with {settings['deviation']:g}: a network that does not bear noise gives a low bound whatever "
            "the samples."
        )
    return paragraphs


def certificate_claims(results: ProbeResults) -> list[str]:
    """What the certificate does not say."""
    margin = 100 * math.sqrt(math.log(100) / (2 * results["data"]["test"]))
    return [
        "The certificate is about the neighbourhood of one trained network, and about random draws there: it bounds "
        "most of them, not each. Another training, even with the same samples and settings, ends much farther away "
        "than the lengths shown, and is not covered.",
        "Compare bounds only where the networks were trained with the same noise, as the two rows of this page were. A "
        "bound on protected samples means something as far as it lies below the one on clean samples.",
        f"Accuracy is that on this test set. For one network, the choice of its {results['data']['test']:,} samples "
        f"leaves another {margin:.1f} points (Hoeffding, 99%).",
    ]


def _certificate_chart(results: ProbeResults) -> str:
    axis = ["0", *(f"{eta:g}" for eta in results["settings"]["etas"])]
    series = []
    for basis, label in LABELS.items():
        values = [results[basis]["quantile"], *(bound["accuracy"] for bound in results[basis]["bounds"])]
        series.append(Series(basis, label, values, [None] * len(values)))
    described = "; ".join(
        f"{line.label} {', '.join('none' if value is None else percent(value) for value in line.values)}"
        for line in series
    )
    return series_chart("Certified accuracy over the length of the move", described, axis, series, None)


def print_distance(results: ProbeResults) -> None:
    """Print the distance, what it was made from, and what must be read with it."""
    console = plain_console(WIDTH)
    table = titled_table(f"Unlearnable Distance {results['distance']:.3f}; 1 is as learnable as clean samples")
    table.add_column("")
    for heading in ("accuracy", f"learnable {results['settings']['count']}"):
        table.add_column(heading, justify="right")
    for basis, label in LABELS.items():
        found = results[basis]
        table.add_row(label, percent(found["last"]), f"{found['learnable']:,.1f}")
    console.print(table)
    for paragraph in [*distance_warnings(results), *distance_claims(results)]:
        console.print(f"\n{paragraph}")


def _distance_context(results: ProbeResults) -> dict[str, Any]:
    last = [results[basis]["sharpness"][-1] for basis in LABELS]
    most = max([*last[0], *last[1], results["threshold"]])
    rows = [
        (layer["name"], layer["parameters"], *(value / most for value in values), *values)
        for layer, values in zip(results["layers"], zip(*last, strict=True), strict=True)
    ]
    return _page_context(
        results,
        f"Unlearnable Distance {results['distance']:.3f}",
        rows=rows,
        warnings=distance_warnings(results),
        claims=distance_claims(results),
    )


def distance_warnings(results: ProbeResults) -> list[str]:
    """What stands in the way of the figure."""
    paragraphs = [
        *_not_learnt(results),
        "One seed: another training may give another number of layers. Repeat it with other seeds.",
    ]
    if results["settings"]["count"] == "layers" and results["clean"]["learnable"] < FEW:
        paragraphs.append(
            f"Of the clean training {results['clean']['learnable']:.1f} layers lie above the threshold: a few sharp "
            "ones have set it, and the distance hardly says more than whether they are as sharp in the other training. "
            "Training with crops and flips (victim.augment=crop-flip) spreads sharpness over more layers."
        )
    return paragraphs


def distance_claims(results: ProbeResults) -> list[str]:
    """What the distance says, and what it does not."""
    return [
        f"A layer counts as learnable where moving its weights by {percent(results['settings']['radius'])} of their "
        f"length changes the loss by more than {results['threshold']:.4g}, the middle between the two clusters of the "
        f"clean training's layers. Measured on {results['probe_samples']:,} training samples after epochs "
        f"{', '.join(map(str, results['epochs']))}: compare it only with distances for which all of this is the same.",
        "Near 0 training hardly finds anything to do, above 1 it finds more than in clean samples, as with adversarial "
        "perturbations. No more than that is known: the number is no accuracy, and whoever undoes the perturbation "
        "first measures another one.",
        f"Probing took {results['probing_seconds']:,.0f} s, and training both networks "
        f"{results['training_seconds']:,.0f} s.",
    ]


def print_recovery(results: ProbeResults) -> None:
    """Print the accuracies, and what must be read with them."""
    console = plain_console(WIDTH)
    table = titled_table("Accuracy after learning from withheld clean samples, by how far the weights may move")
    for heading in ("", "0", *(f"{eta:g}" for eta in results["settings"]["etas"])):
        table.add_column(heading, justify="right" if heading else "left")
    for basis, label in LABELS.items():
        found = results[basis]
        table.add_row(label, percent(found["last"]), *(percent(point["accuracy"]) for point in found["recovered"]))
    console.print(table)
    for paragraph in [*recovery_warnings(results), *recovery_claims(results)]:
        console.print(f"\n{paragraph}")


def _recovery_context(results: ProbeResults) -> dict[str, Any]:
    return _page_context(
        results,
        "Recovery attack",
        chart=Markup(_recovery_chart(results)),
        warnings=recovery_warnings(results),
        claims=recovery_claims(results),
    )


def recovery_warnings(results: ProbeResults) -> list[str]:
    """What stands in the way of the figures."""
    return _not_learnt(results)


def recovery_claims(results: ProbeResults) -> list[str]:
    """What the attack says, and what it does not."""
    furthest = results["protected"]["recovered"][-1]
    return [
        f"The attacker has a network that was trained on {results['data']['train']:,} protected samples and "
        f"{results['withheld']:,} clean ones that are not among them, and moves all weights together by at most the "
        f"length shown, in L2. The {results['withheld']:,} clean samples alone bring a new network of the same recipe "
        f"to {percent(results['scratch'])}: what an attack reaches beyond that came out of the protected samples.",
        f"With the longest move of {furthest['eta']:g} the attack on the protected network ends "
        f"{furthest['moved']:.2g} away from its start; BatchNorm's running statistics are no weights, and follow "
        "the clean samples freely.",
        "One seed and one way of fine-tuning: another may recover more.",
    ]


def _recovery_chart(results: ProbeResults) -> str:
    axis = ["0", *(f"{eta:g}" for eta in results["settings"]["etas"])]
    series = []
    for basis, label in LABELS.items():
        values = [results[basis]["last"], *(point["accuracy"] for point in results[basis]["recovered"])]
        series.append(Series(basis, label, values, [None] * len(values)))
    described = "; ".join(f"{line.label} {', '.join(percent(v or 0) for v in line.values)}" for line in series)
    return series_chart("Accuracy over the length of the move", described, axis, series, results["data"]["chance"])


def _page_context(results: ProbeResults, title: str, **own: Any) -> dict[str, Any]:
    """What the page of a measure shows, and its panel in a protection report; `own` are the parts of this measure."""
    settings = yaml.safe_dump(dict(results["settings"]), sort_keys=False)
    return {"title": title, "results": results, "labels": LABELS, "settings": settings, **own}


def _not_learnt(results: ProbeResults, how: str = "") -> list[str]:
    """A paragraph where the network on clean samples did not learn; `how` it was tested."""
    if results["status"] != "invalid":
        return []
    return [
        f"INVALID: the network on clean samples reached {percent(results['clean']['last'])}{how}, chance is "
        f"{percent(results['data']['chance'])}. Train longer."
    ]


CONTEXTS: dict[str, Callable[[ProbeResults], dict[str, Any]]] = {
    "certify": _certificate_context,
    "distance": _distance_context,
    "recover": _recovery_context,
}
"""What the page and the panel of a probe show, by the kind of its results, which is the verb."""
