"""What results.json of `hpcule certify`, `distance`, `recover` and `probe strip` holds.

Every accuracy is the headline measure in [0, 1] on the clean test set, unless it is that of training: where classes are
so unequal that accuracy flatters, it is balanced accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from hpcule.evaluation.results import TaskDocument
from hpcule.measure.strip import Way

Basis = Literal["clean", "protected"]
"""Kind of training set of one of the two networks."""


class NetworksDocument(TypedDict):
    """What the results of every measure on the two networks hold.

    Attributes:
        status: invalid where the network on clean samples did not learn.
        measure: the headline, of which `data.chance` is what guessing reaches, and `effective` the number of test
            samples that counts for intervals; see `Headline`.
        store: SHA-256 of the store's manifest.
        reduced: whether the store was crafted with the reduced settings of a preset.
    """

    hpcule: str
    status: Literal["done", "invalid"]
    measure: str
    effective: float
    data: TaskDocument
    method: str
    store: str
    reduced: bool


class VictimSettings(TypedDict):
    """The settings of a victim that the page of a certificate reads."""

    weight_noise: float


class CertificateSettings(TypedDict):
    """The settings that the page of a certificate reads; the document holds all of them."""

    victim: VictimSettings
    deviation: float
    draws: int
    quantile: float
    etas: list[float]
    alpha: float


class BoundDocument(TypedDict):
    """An upper bound of accuracy; see `hpcule.measure.certificate.Bound`."""

    eta: float
    quantile: float
    rank: int | None
    accuracy: float | None


class CertifiedDocument(TypedDict):
    """One network: accuracies without noise, on test and training samples, and of the draws, in rising order."""

    last: float
    train: float
    mean: float
    quantile: float
    bounds: list[BoundDocument]
    accuracies: list[float]


class CertificateDocument(NetworksDocument):
    """The whole of results.json of `hpcule certify`."""

    kind: Literal["certify"]
    settings: CertificateSettings
    clean: CertifiedDocument
    protected: CertifiedDocument


class DistanceSettings(TypedDict):
    """The settings that the page of a distance reads; the document holds all of them."""

    radius: float
    count: Literal["layers", "parameters"]


class LayerDocument(TypedDict):
    """A layer's weights and their number."""

    name: str
    parameters: int


class SharpnessDocument(TypedDict):
    """One network: accuracies on test and training samples, and the sharpness of every layer at every probed epoch.

    `learnable` is the number of layers, or of parameters, above the threshold: a mean over the epochs.
    """

    last: float
    train: float
    learnable: float
    sharpness: list[list[float]]


class DistanceDocument(NetworksDocument):
    """The whole of results.json of `hpcule distance`; `epochs` are those after which layers were probed."""

    kind: Literal["distance"]
    settings: DistanceSettings
    distance: float
    threshold: float
    epochs: list[int]
    layers: list[LayerDocument]
    probe_samples: int
    training_seconds: float
    probing_seconds: float
    clean: SharpnessDocument
    protected: SharpnessDocument


class RecoverySettings(TypedDict):
    """The settings that the page of a recovery attack reads; the document holds all of them."""

    etas: list[float]


class AttackDocument(TypedDict):
    """Accuracy after an attack that may move all weights by `eta`, and by how much it moved them."""

    eta: float
    accuracy: float
    moved: float


class RecoveredDocument(TypedDict):
    """One network: its accuracy before the attacks, and what they reach, in the order of the settings' `etas`."""

    last: float
    recovered: list[AttackDocument]


class RecoveryDocument(NetworksDocument):
    """The whole of results.json of `hpcule recover`.

    Attributes:
        withheld: number of clean samples that the attacker has.
        scratch: accuracy of a new network that is trained on these alone.
    """

    kind: Literal["recover"]
    settings: RecoverySettings
    withheld: int
    clean: RecoveredDocument
    protected: RecoveredDocument
    scratch: float


class StripSettings(TypedDict):
    """The settings that the page of stripping reads; the document holds all of them."""

    originals: int


class CleanDocument(TypedDict):
    """The network on clean samples: its accuracy."""

    last: float


class StrippedDocument(TypedDict):
    """A network on published or stripped samples: its accuracy, and their mean change from the originals in levels."""

    last: float
    residual: float


class StripDocument(NetworksDocument):
    """The whole of results.json of `hpcule probe strip`; `known` is the number of originals that the attacker has."""

    kind: Literal["strip"]
    settings: StripSettings
    known: int
    clean: CleanDocument
    protected: StrippedDocument
    stripped: Mapping[Way, StrippedDocument]


ProbeDocument = CertificateDocument | DistanceDocument | RecoveryDocument | StripDocument
"""What a probe of a store's networks found."""
