"""Probes of a store's networks for people: certificate, Unlearnable Distance, recovery attack and stripping.

Each is a table in a terminal, a self-contained HTML page, and a panel of the store's protection report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, get_args

import yaml
from markupsafe import Markup

from hpcule.config.documents import checked
from hpcule.config.errors import UsageError
from hpcule.evaluation.results import capitalised, percent, with_article
from hpcule.probes.documents import (
    Basis,
    CertificateDocument,
    DistanceDocument,
    ProbeDocument,
    RecoveryDocument,
    StripDocument,
)
from hpcule.probes.networks import BASES
from hpcule.report.charts import Series, series_chart
from hpcule.report.page import environment
from hpcule.report.stripping import originals, strip_claims, strip_rows
from hpcule.report.terminal import plain_console, titled_table
from hpcule.store.files import read_json, sha256_file, write_atomically
from hpcule.store.read import StoreReader
from hpcule.store.vault import MANIFEST
from hpcule.victim.kinds import TITLES

LABELS = {basis: TITLES[basis] for basis in BASES}
WIDTH = 100
TELLING = 0.05
"""Least accuracy beyond chance that a clean control is certified to; below it the noise alone keeps every bound low."""
FEW = 2
"""Fewest clean layers above the threshold for the distance to rest on more than one of them."""

Probe = Literal["certify", "distance", "recover", "strip"]
PROBES: tuple[Probe, ...] = get_args(Probe)
"""Kinds of probes in the order of their panels."""


class PanelContext(TypedDict):
    """What the page of a probe shows, and its panel in a protection report; `rows` are of its table."""

    title: str
    results: ProbeDocument
    labels: Mapping[Basis, str]
    settings: str
    warnings: list[str]
    claims: list[str]
    chart: NotRequired[Markup]
    rows: NotRequired[Sequence[tuple[object, ...]]]


@dataclass(frozen=True)
class ProbePanel:
    """A section of the protection report: a template and what it shows."""

    template: str
    context: PanelContext


def write_probe(results: ProbeDocument, path: Path) -> None:
    """Write the page of a probe, readable by its owner alone.

    Raises:
        StoreError: it cannot be written.
    """
    write_atomically(path, _page(results).encode())


def panels(probes: Sequence[ProbeDocument]) -> list[ProbePanel]:
    """A panel for each of the probes, in the order of `PROBES`."""
    ordered = sorted(probes, key=lambda results: PROBES.index(results["kind"]))
    return [ProbePanel(f"{results['kind']}_panel.html.j2", _context(results)) for results in ordered]


def read_probes(folders: Sequence[Path], store: StoreReader) -> list[ProbeDocument]:
    """The results in the folders that probes of this store have written.

    Raises:
        UsageError: a folder holds none, or they are of another store.
    """
    return [_read(folder, sha256_file(store.path / MANIFEST)) for folder in folders]


def _read(folder: Path, store: str) -> ProbeDocument:
    path, valid = folder / "results.json", "name an output folder of hpcule certify, distance, recover or probe strip"
    try:
        results = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--with {folder}: {path} cannot be read ({error}); {valid}") from None
    if results.get("kind") not in PROBES:
        raise UsageError(f"--with {folder}: holds results of kind {results.get('kind')!r}; {valid}")
    if results.get("store") != store:
        raise UsageError(f"--with {folder}: was measured on another store, or on this one before it changed")
    try:
        found: ProbeDocument = checked(results, ProbeDocument)
        _page(found)  # now: after hours of training it would be too late
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise UsageError(
            f"--with {folder}: {path} is damaged, or of another version ({error}); measure again"
        ) from None
    return found


def _page(results: ProbeDocument) -> str:
    return environment().get_template(f"{results['kind']}.html.j2").render(_context(results))


def _context(results: ProbeDocument) -> PanelContext:
    if results["kind"] == "certify":
        return _certificate_context(results)
    if results["kind"] == "distance":
        return _distance_context(results)
    if results["kind"] == "recover":
        return _recovery_context(results)
    return _strip_context(results)


def print_certificate(results: CertificateDocument) -> None:
    """Print the bounds, with their warnings and meaning."""
    console = plain_console(WIDTH)
    table = titled_table(f"Certified upper bound of {results['measure']}, by the L2 norm of a change of all weights")
    for heading in ("", "unchanged", *(f"{eta:g}" for eta in results["settings"]["etas"])):
        table.add_column(heading, justify="right" if heading else "left")
    for basis, label in LABELS.items():
        found = results[basis]
        cells = ["none" if bound["accuracy"] is None else percent(bound["accuracy"]) for bound in found["bounds"]]
        table.add_row(label, percent(found["quantile"]), *cells)
    console.print(table)
    for paragraph in [*certificate_warnings(results), certificate_reading(results)]:
        console.print(f"\n{paragraph}")


def _certificate_context(results: CertificateDocument) -> PanelContext:
    return {
        "title": "Certificate",
        "results": results,
        "labels": LABELS,
        "settings": _settings(results),
        "chart": Markup(_certificate_chart(results)),
        "warnings": certificate_warnings(results),
        "claims": [certificate_reading(results), *certificate_claims(results)],
    }


def certificate_reading(results: CertificateDocument) -> str:
    """A paragraph on what the bounds mean."""
    settings, test = results["settings"], results["data"]["test"]
    return (
        f"With Gaussian noise of standard deviation {settings['deviation']:g} on every weight of these networks, and "
        f"of all networks whose weights differ from them by at most the L2 norm shown, at least "
        f"{percent(settings['quantile'])} of the draws have at most this {results['measure']} on the {test:,} clean "
        f"test samples. All bounds hold simultaneously with {percent(1 - settings['alpha'])} confidence over "
        f"{settings['draws']:,} draws."
    )


def certificate_warnings(results: CertificateDocument) -> list[str]:
    """Paragraphs that limit what the figures mean, to be read first; empty if there are none."""
    paragraphs, settings = _not_learnt(results, " without noise"), results["settings"]
    chance, clean = results["data"]["chance"], results["clean"]
    if not paragraphs and clean["quantile"] < chance + TELLING:
        paragraphs.append(
            f"These bounds say nothing about the protection: under this noise the network trained on clean samples "
            f"has {with_article(results['measure'])} of {percent(clean['quantile'])} as well (chance level "
            f"{percent(chance)}). Set a smaller deviation, or train with noise on the weights (victim.weight_noise)."
        )
    if settings["victim"]["weight_noise"] < settings["deviation"]:
        paragraphs.append(
            f"The networks were trained with noise of {settings['victim']['weight_noise']:g} on their weights and "
            f"certified with {settings['deviation']:g}: the bound of a network that does not tolerate noise is low for "
            "any training samples."
        )
    return paragraphs


def certificate_claims(results: CertificateDocument) -> list[str]:
    """Paragraphs on what the certificate does not cover."""
    margin = 100 * math.sqrt(math.log(100) / (2 * results["effective"]))
    return [
        "The certificate covers random draws in the neighbourhood of one trained network, and most of them, not all. "
        "Another training, even with the same samples and settings, ends much farther away than the norms shown and is "
        "not covered.",
        "Compare bounds only if the networks were trained with the same noise, as both rows of this page were. A bound "
        "on protected samples is meaningful to the extent that it is below the bound on clean samples.",
        f"{capitalised(results['measure'])} is measured on this test set. For one network, the choice of its "
        f"{results['data']['test']:,} samples adds an uncertainty of {margin:.1f} points (Hoeffding, 99%).",
    ]


def _certificate_chart(results: CertificateDocument) -> str:
    axis = ["0", *(f"{eta:g}" for eta in results["settings"]["etas"])]
    series = []
    for basis, label in LABELS.items():
        values = [results[basis]["quantile"], *(bound["accuracy"] for bound in results[basis]["bounds"])]
        series.append(Series(basis, label, values, [None] * len(values)))
    described = "; ".join(
        f"{line.label} {', '.join('none' if value is None else percent(value) for value in line.values)}"
        for line in series
    )
    return series_chart(
        f"Certified {results['measure']} over the norm of the weight change", described, axis, series, None
    )


def print_distance(results: DistanceDocument) -> None:
    """Print the distance, the figures it is derived from, its warnings and its meaning."""
    console = plain_console(WIDTH)
    table = titled_table(f"Unlearnable Distance {results['distance']:.3f}; 1: as learnable as clean samples")
    table.add_column("")
    for heading in (results["measure"], f"learnable {results['settings']['count']}"):
        table.add_column(heading, justify="right")
    for basis, label in LABELS.items():
        found = results[basis]
        table.add_row(label, percent(found["last"]), f"{found['learnable']:,.1f}")
    console.print(table)
    for paragraph in [*distance_warnings(results), *distance_claims(results)]:
        console.print(f"\n{paragraph}")


def _distance_context(results: DistanceDocument) -> PanelContext:
    last = [results[basis]["sharpness"][-1] for basis in LABELS]
    most = max([*last[0], *last[1], results["threshold"]])
    rows = [
        (layer["name"], layer["parameters"], *(value / most for value in values), *values)
        for layer, values in zip(results["layers"], zip(*last, strict=True), strict=True)
    ]
    return {
        "title": f"Unlearnable Distance {results['distance']:.3f}",
        "results": results,
        "labels": LABELS,
        "settings": _settings(results),
        "rows": rows,
        "warnings": distance_warnings(results),
        "claims": distance_claims(results),
    }


def distance_warnings(results: DistanceDocument) -> list[str]:
    """Paragraphs that limit what the distance means, to be read first."""
    paragraphs = [
        *_not_learnt(results),
        "This is one seed: another training may give another number of layers. Repeat the probe with other seeds.",
    ]
    if results["settings"]["count"] == "layers" and results["clean"]["learnable"] < FEW:
        paragraphs.append(
            f"In the clean training {results['clean']['learnable']:.1f} layers lie above the threshold: a few sharp "
            "layers determine it, and the distance mainly shows whether these are equally sharp in the other training. "
            "Training with crops and flips (victim.countermeasures=[crop-flip]) spreads sharpness over more layers."
        )
    return paragraphs


def distance_claims(results: DistanceDocument) -> list[str]:
    """Paragraphs on what the distance means, and on what it does not cover."""
    return [
        f"A layer counts as learnable if changing its weights by {percent(results['settings']['radius'])} of their "
        f"norm changes the loss by more than {results['threshold']:.4g}, the midpoint between the two clusters of "
        f"layers in the clean training. Measured on {results['probe_samples']:,} training samples after epochs "
        f"{', '.join(map(str, results['epochs']))}: compare it only with distances measured in the same way.",
        "Near 0 training hardly changes the network; above 1 it changes it more than clean samples do, as with "
        "adversarial perturbations. The distance is not an accuracy, and removing the perturbation first gives another "
        "distance.",
        f"Probing took {results['probing_seconds']:,.0f} s, and training both networks "
        f"{results['training_seconds']:,.0f} s.",
    ]


def print_recovery(results: RecoveryDocument) -> None:
    """Print the accuracies, with their warnings and meaning."""
    console = plain_console(WIDTH)
    measure = capitalised(results["measure"])
    table = titled_table(f"{measure} after fine-tuning on withheld clean samples, by the L2 norm of the weight change")
    for heading in ("", "0", *(f"{eta:g}" for eta in results["settings"]["etas"])):
        table.add_column(heading, justify="right" if heading else "left")
    for basis, label in LABELS.items():
        found = results[basis]
        table.add_row(label, percent(found["last"]), *(percent(point["accuracy"]) for point in found["recovered"]))
    console.print(table)
    for paragraph in [*recovery_warnings(results), *recovery_claims(results)]:
        console.print(f"\n{paragraph}")


def _recovery_context(results: RecoveryDocument) -> PanelContext:
    return {
        "title": "Recovery attack",
        "results": results,
        "labels": LABELS,
        "settings": _settings(results),
        "chart": Markup(_recovery_chart(results)),
        "warnings": recovery_warnings(results),
        "claims": recovery_claims(results),
    }


def recovery_warnings(results: RecoveryDocument) -> list[str]:
    """Paragraphs that limit what the figures mean, to be read first; empty if there are none."""
    return _not_learnt(results)


def recovery_claims(results: RecoveryDocument) -> list[str]:
    """Paragraphs on what the attack shows, and on what it does not cover."""
    furthest = results["protected"]["recovered"][-1]
    return [
        f"The attacker has a network that was trained on {results['data']['train']:,} protected samples and "
        f"{results['withheld']:,} other clean samples, and fine-tunes all weights within the L2 norm shown. Training a "
        f"new network of the same recipe on the {results['withheld']:,} clean samples alone gives "
        f"{with_article(results['measure'])} of {percent(results['scratch'])}: what an attack reaches beyond that was "
        "learnt from the protected samples.",
        f"With the largest norm of {furthest['eta']:g} the attack on the protected network ends at a distance of "
        f"{furthest['moved']:.2g} from its start; BatchNorm's running statistics are not weights, and adapt to the "
        "clean samples without a bound.",
        "This is one seed and one way of fine-tuning; others may recover more.",
    ]


def _recovery_chart(results: RecoveryDocument) -> str:
    axis = ["0", *(f"{eta:g}" for eta in results["settings"]["etas"])]
    series = []
    for basis, label in LABELS.items():
        values = [results[basis]["last"], *(point["accuracy"] for point in results[basis]["recovered"])]
        series.append(Series(basis, label, values, [None] * len(values)))
    described = "; ".join(f"{line.label} {', '.join(percent(v or 0) for v in line.values)}" for line in series)
    title = f"{capitalised(results['measure'])} over the norm of the weight change"
    return series_chart(title, described, axis, series, results["data"]["chance"])


def print_strip(results: StripDocument) -> None:
    """Print what is left of the perturbation and what a network learns, with warnings and meaning."""
    console = plain_console(WIDTH)
    table = titled_table(f"Stripped with {originals(results)}")
    for heading in ("samples trained on", "mean change, levels", results["measure"]):
        table.add_column(heading, justify="left" if heading == "samples trained on" else "right")
    for _, name, residual, last in strip_rows(results):
        table.add_row(name, f"{residual:.2f}", percent(last))
    console.print(table)
    for paragraph in [*strip_warnings(results), *strip_claims(results)]:
        console.print(f"\n{paragraph}")


def strip_warnings(results: StripDocument) -> list[str]:
    """Paragraphs that limit what the figures mean, to be read first; empty if there are none."""
    return _not_learnt(results)


def _strip_context(results: StripDocument) -> PanelContext:
    return {
        "title": "Stripping with known originals",
        "results": results,
        "labels": LABELS,
        "settings": _settings(results),
        "rows": strip_rows(results),
        "warnings": strip_warnings(results),
        "claims": strip_claims(results),
    }


def _settings(results: ProbeDocument) -> str:
    """All settings as YAML."""
    return yaml.safe_dump(dict(results["settings"]), sort_keys=False)


def _not_learnt(results: ProbeDocument, how: str = "") -> list[str]:
    """A paragraph if the network on clean samples did not learn, else none; `how` it was tested."""
    if results["status"] != "invalid":
        return []
    return [
        f"INVALID: the network trained on clean samples reached {with_article(results['measure'])} of "
        f"{percent(results['clean']['last'])}{how} (chance level {percent(results['data']['chance'])}). Train longer."
    ]
