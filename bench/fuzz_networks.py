"""Valid files of networks and of what was measured on them, each of which is changed, and what reads them whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from fuzz_sources import Make, Parser
from torch import nn

from hpcule.config.errors import HpculeError
from hpcule.evaluation.matrix import CellResult
from hpcule.measure.strip import Way
from hpcule.nets.encoder import load_weights
from hpcule.planning.calibrate import Calibration, Rate
from hpcule.planning.measurements import Measurements
from hpcule.planning.timed import TimedRun, TimedStage, Timing
from hpcule.planning.victim_trial import VictimCalibration
from hpcule.probes.documents import CertifiedDocument, NetworksDocument, ProbeDocument
from hpcule.report.probes import panels, read_probes, write_probe
from hpcule.store.files import sha256_file, to_json
from hpcule.store.read import StoreReader
from hpcule.victim.countermeasures.purify import purification
from hpcule.victim.countermeasures.table import Applied
from hpcule.victim.kept import Kept
from hpcule.victim.result import EpochResult, VictimResult
from hpcule.world.gradient_norms import GradientNorms
from hpcule.world.plain_values import dumps, loads

SIZE = 8
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE), dtype=np.uint8)
MANIFEST = "{}"


class Darker(nn.Module):
    """A convolution and a half: weights, and numbers in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.convolution(images) / 2
        return changed.reshape(images.shape)


def make_weights(folder: Path) -> Path:
    torch.save(Darker().state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


def make_program(folder: Path) -> Path:
    shapes = ({0: torch.export.Dim("n")},)
    program = torch.export.export(Darker(), (torch.zeros(3, 3, SIZE, SIZE),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "program.pt2")
    return folder / "program.pt2"


def read_program(folder: Path) -> None:
    """As a purifier of images."""
    step = Applied("rebuild", None)
    purify = purification(step, str(folder / "program.pt2"), 255, 0, torch.device("cpu"))
    purify(np.arange(len(IMAGES)), IMAGES)


def facts() -> NetworksDocument:
    return {
        "hpcule": "0",
        "status": "done",
        "measure": "accuracy",
        "effective": 10.0,
        "data": {"name": "a", "train": 10, "test": 10, "chance": 0.5},
        "method": "pil",
        "store": "",
        "reduced": False,
    }


def certificate() -> ProbeDocument:
    network: CertifiedDocument = {
        "last": 0.9,
        "train": 1.0,
        "mean": 0.8,
        "quantile": 0.85,
        "bounds": [
            {"eta": 0.1, "quantile": 0.5, "rank": 3, "accuracy": 0.9},
            {"eta": 0.2, "quantile": 0.5, "rank": None, "accuracy": None},
        ],
        "accuracies": [0.7, 0.8, 0.9],
    }
    settings = {"victim": {"weight_noise": 0.0}, "deviation": 0.1, "draws": 3, "quantile": 0.5}
    return cast(
        ProbeDocument,
        {
            **facts(),
            "kind": "certify",
            "settings": {**settings, "etas": [0.1, 0.2], "alpha": 0.01},
            "clean": network,
            "protected": network,
        },
    )


def distance() -> ProbeDocument:
    network = {"last": 0.9, "train": 1.0, "learnable": 1.5, "sharpness": [[0.1, 0.2], [0.3, 0.4]]}
    return cast(
        ProbeDocument,
        {
            **facts(),
            "kind": "distance",
            "settings": {"radius": 0.1, "count": "layers"},
            "distance": 0.5,
            "threshold": 0.2,
            "epochs": [1, 2],
            "layers": [{"name": "a", "parameters": 10}, {"name": "b", "parameters": 20}],
            "probe_samples": 10,
            "training_seconds": 1.0,
            "probing_seconds": 1.0,
            "clean": network,
            "protected": network,
        },
    )


def recovery() -> ProbeDocument:
    network = {"last": 0.9, "recovered": [{"eta": 0.1, "accuracy": 0.8, "moved": 0.05}]}
    return cast(
        ProbeDocument,
        {
            **facts(),
            "kind": "recover",
            "settings": {"etas": [0.1]},
            "withheld": 3,
            "clean": network,
            "protected": network,
            "scratch": 0.6,
        },
    )


def stripping() -> ProbeDocument:
    ways: tuple[Way, ...] = ("pattern", "filter")
    network = {"last": 0.6, "residual": 4.0}
    return cast(
        ProbeDocument,
        {
            **facts(),
            "kind": "strip",
            "settings": {"originals": 1},
            "known": 2,
            "clean": {"last": 0.9},
            "protected": network,
            "stripped": dict.fromkeys(ways, network),
        },
    )


def make_probe(document: ProbeDocument) -> Make:
    """What a probe of a store has found."""

    def make(folder: Path) -> Path:
        (folder / "manifest.json").write_text(MANIFEST)
        results = {**document, "store": sha256_file(folder / "manifest.json")}
        (folder / "results.json").write_bytes(to_json(results))
        return folder / "results.json"

    return make


def read_probe(folder: Path) -> None:
    """As the page of an evaluation shows it."""
    found = read_probes([folder], cast(StoreReader, SimpleNamespace(path=folder)))
    panels(found)
    write_probe(found[0], folder / "report.html")


def make_calibration(folder: Path) -> Path:
    names = [field.name for field in dataclasses.fields(Calibration)]
    seconds: dict[str, Any] = {name: 0.5 for name in names if name.endswith(("seconds", "_share"))}
    measured: dict[str, Any] = {"hpcule": "0", "settings": {"method": {"epsilon": 8}}, "workers": 2, "cores": 2}
    rate = Rate(stage="a", pass_seconds=0.1, call_seconds=0, sum_seconds=0, start_seconds=0, once_seconds=0)
    craft = Calibration(**measured, threads=1, device="cpu", base_bytes=1e8, load=0, rates=(rate,), **seconds)
    both: dict[str, Any] = {"start_seconds": 1.0, "measured_seconds": 1.0, "load": 0.0}
    victim = VictimCalibration(**measured, **both, train_sample_seconds=0.1, test_sample_seconds=0.1)
    stage = TimedStage(stage="a", seconds=1, collective_seconds=0)
    run = TimedRun(samples=9, complete=True, stages=(stage,), storage_seconds=0, peak_bytes=1e8)
    timing = Timing(**measured, **both, threads=1, device="cpu", runs=(run,))
    Measurements(print, [craft], [victim], [timing]).write(folder / "calibration.json")
    return folder / "calibration.json"


def cells(folder: Path) -> Kept[CellResult]:
    return Kept(folder, CellResult.document, CellResult.of)


def make_cell(folder: Path) -> Path:
    norms = [(0, GradientNorms(8, 8, 20.0, 1.0))]
    victim = VictimResult(0, 9, 72, 8, 1.5, [EpochResult(1, 0.5, 0.4, {"accuracy": 0.4})], 9, norms, 0.5, None)
    linear: Any = {"explained": 0.5, "commonest": 0.2, "flipped": {"1": 0.5}}
    cells(folder).keep("cell", CellResult("plain", "clean", victim, linear))
    return folder / "cell.json"


def read_cell(folder: Path) -> None:
    found = cells(folder).find("cell")
    assert found is not None
    to_json(found.document())


def make_values(folder: Path) -> Path:
    values = {"a": [1, 2.5, None, "b", b"c"], "d": (np.arange(5.0), np.int64(3)), "e": {1, 2}}
    (folder / "values").write_bytes(dumps(values))
    return folder / "values"


def read_values(folder: Path) -> None:
    try:
        loads((folder / "values").read_bytes())
    except RuntimeError as error:
        raise HpculeError(str(error)) from None


NETWORKS: dict[str, Parser] = {
    "weights": Parser(make_weights, lambda folder: load_weights(folder / "weights.pt")),
    "program of a purifier": Parser(make_program, read_program),
    "certificate": Parser(make_probe(certificate()), read_probe, text=True),
    "Unlearnable Distance": Parser(make_probe(distance()), read_probe, text=True),
    "recovery attack": Parser(make_probe(recovery()), read_probe, text=True),
    "stripping": Parser(make_probe(stripping()), read_probe, text=True),
    "calibration": Parser(
        make_calibration, lambda folder: Measurements.read(folder / "calibration.json", print), text=True
    ),
    "result of a victim": Parser(make_cell, read_cell, text=True),
    "values of another rank": Parser(make_values, read_values),
}
