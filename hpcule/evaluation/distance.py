"""How far the published samples are from the clean ones, as the report's facts."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from hpcule.evaluation.results import ProtectionDocument, percent
from hpcule.measure.visibility import VisibilityNumbers
from hpcule.victim.kinds import Kind

KINDS: tuple[Literal["published", "clean"], ...] = ("published", "clean")


@dataclass(frozen=True)
class Row:
    """A fact: its name, its value, and what the value means."""

    name: str
    value: str
    note: str = ""


def distance(results: ProtectionDocument) -> list[Row]:
    """The facts for images or for recordings."""
    return _audibility(results) if "audibility" in results else _visibility(results)


def structure(results: ProtectionDocument) -> list[Row]:
    """What the perturbation reveals about the labels; empty if that was not measured."""
    if "structure" not in results:
        return []
    found = results["structure"]
    judged = f"{found['measure']}, guessing gives {percent(found['chance'])}"
    how = f"of {found['n']:,} samples, by a linear classifier fitted to the others; {judged}"
    return [
        Row("Classes recognised from the perturbation", percent(found["delta"]["held_out"]), how),
        Row(
            "Classes recognised from clean values",
            percent(found["clean"]["held_out"]),
            f"by the same kind of classifier; {judged}",
        ),
        Row(
            "Shared within a class",
            percent(found["class_share"]),
            "of the perturbation's variance; averaging a class recovers that share",
        ),
        *(
            Row(
                f"Classes recognised from {kind} samples",
                f"{percent(found['detection'][kind]['linear'])} and {percent(found['detection'][kind]['two_layers'])}",
                f"of those held out, by a linear classifier and by a network of two layers; {judged}"
                + (
                    "; far more than of clean ones shows anybody that they are protected" if kind == "published" else ""
                ),
            )
            for kind in KINDS
        ),
        *(
            Row(
                f"Estimated Bayes error, {kind}",
                percent(found["bayes"][kind]["kernel"]),
                f"by a kernel density on values; at least {percent(found['bayes'][kind]['at_least'])} by nearest "
                f"neighbours, whose error is {percent(found['bayes'][kind]['neighbour'])}",
            )
            for kind in KINDS
        ),
    ]


@dataclass(frozen=True)
class LinearRow:
    """How linear the victims of one set are: means over seeds, shares in [0, 1]; `flipped` by radius."""

    kind: Kind
    title: str
    explained: float
    commonest: float
    flipped: dict[str, float]


def linear_victims(results: ProtectionDocument) -> list[LinearRow]:
    """How linear the victims of the first recipe are; empty if that was not measured."""
    rows = []
    for entry in results["recipes"][0]["sets"]:
        found = [victim["linearity"] for victim in entry["seeds"] if "linearity" in victim]
        if found:
            flipped = {radius: fmean(one["flipped"][radius] for one in found) for radius in found[0]["flipped"]}
            explained, commonest = (fmean(one[name] for one in found) for name in ("explained", "commonest"))
            rows.append(LinearRow(entry["set"], entry["title"], explained, commonest, flipped))
    return rows


@dataclass(frozen=True)
class FeatureRow:
    """Properties of the features that the victims of one set learn first: means over seeds."""

    recipe: str
    kind: Kind
    title: str
    alignment: float
    uniformity: float


def learnt_features(results: ProtectionDocument) -> list[FeatureRow]:
    """Properties of the features of all recipes that learn features first; empty if there are none."""
    rows = []
    for recipe in results["recipes"]:
        for entry in recipe["sets"]:
            found = [victim for victim in entry["seeds"] if "alignment" in victim]
            if found:
                means = (fmean(one["alignment"] for one in found), fmean(one["uniformity"] for one in found))
                rows.append(FeatureRow(recipe["title"], entry["set"], entry["title"], *means))
    return rows


def _visibility(results: ProtectionDocument) -> list[Row]:
    """How far the published images are from the clean ones."""
    numbers, levels = results["visibility"], results["protection"]["levels"]
    decibels = "none changed" if numbers["psnr_db"] is None else f"{numbers['psnr_db']:.2f} dB"
    largest = "levels, of any value in any image"
    if numbers.get("resized"):
        largest += " as a victim resizes it; at its own size none exceeds the budget"
    return [
        Row("Largest change", f"{numbers['linf_levels']} of {levels}", largest),
        Row("PSNR, mean", decibels, "signal to noise over the changed images; higher is closer to the original"),
        Row("SSIM, mean", f"{numbers['ssim_mean']:.4f}", "structural similarity; 1 is identical"),
        Row("SSIM, lowest", f"{numbers['ssim_min']:.4f}", "the image that changed most"),
        Row("Euclidean change, mean", f"{numbers['l2_mean']:.3f}", "for an image with values between 0 and 1"),
        Row("Values changed", percent(numbers["changed_share"]), "of all values of all images"),
        Row("Images unchanged", percent(numbers["identical_share"]), "identical to their original, so not protected"),
        *_perceptual(numbers),
        Row("Images measured", f"{numbers['n']:,}"),
    ]


def _perceptual(numbers: VisibilityNumbers) -> list[Row]:
    if "lpips_mean" not in numbers:
        return []
    note = f"perceptual distance by AlexNet, version 0.1, of {numbers['lpips_n']:,} images; 0 is identical"
    return [Row("LPIPS, mean", f"{numbers['lpips_mean']:.4f}", f"{note}; at most {numbers['lpips_max']:.4f}")]


def _audibility(results: ProtectionDocument) -> list[Row]:
    """How far the published recordings are from the clean ones."""
    numbers, levels = results["audibility"], results["protection"]["levels"]
    decibels = "none changed" if numbers["snr_db"] is None else f"{numbers['snr_db']:.2f} dB"
    return [
        Row("SNR, mean", decibels, "signal to noise over the changed recordings; higher is closer to the original"),
        Row("Log-spectral distance, mean", f"{numbers['log_spectral_db']:.2f} dB", "over frames; 0 is identical"),
        Row(
            "Fréchet distance",
            f"{numbers['frechet_log_mel']:.3f}",
            "of log-mel frames, clean and published; 0 is equal",
        ),
        Row("Largest change", f"{numbers['linf_levels']} of {levels}", "levels, of any sample of any recording"),
        Row("Samples changed", percent(numbers["changed_share"]), "of all samples of all recordings, without padding"),
        Row("Recordings unchanged", percent(numbers["identical_share"]), "identical to the original: not protected"),
        Row("Recordings measured", f"{numbers['n']:,}"),
    ]
