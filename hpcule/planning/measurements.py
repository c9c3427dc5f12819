"""Calibrations by what they are for: measured when first asked for, or read from a file that an earlier plan wrote."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hpcule.config.errors import UsageError
from hpcule.config.tree import Tree, build_config, flat
from hpcule.craft.config import CraftConfig
from hpcule.data.source import Source
from hpcule.planning.calibrate import Calibration, Measured, calibrate, run_settings
from hpcule.planning.timed import Timing, time_craft, timing_settings
from hpcule.planning.victim_trial import VictimCalibration, VictimTrial, calibrate_victim, victim_settings
from hpcule.store.files import read_json, to_json, write_atomically

Known = TypeVar("Known", Calibration, Timing, VictimCalibration)


@dataclass
class Measurements:
    """What has been measured so far. Read from a file, they are all there is: nothing is measured again."""

    report: Callable[[str], None]
    """Called with what is going to be measured."""
    crafts: list[Calibration] = field(default_factory=list)
    victims: list[VictimCalibration] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    path: Path | None = None
    """The file that they were read from."""

    @classmethod
    def read(cls, path: Path, report: Callable[[str], None]) -> Measurements:
        """From a file that `write` has written.

        Raises:
            UsageError: it holds something else.
        """
        try:
            tree = read_json(path)
            crafts = [build_config(Calibration, entry) for entry in tree["crafts"]]
            victims = [build_config(VictimCalibration, entry) for entry in tree["victims"]]
            timings = [build_config(Timing, entry) for entry in tree["timings"]]
        except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
            raise UsageError(f"{path} is no calibration file ({error}): name one that `hpcule plan` wrote") from None
        return cls(report, crafts, victims, timings, path)

    def write(self, path: Path) -> None:
        """Keep them for another plan."""
        kinds: dict[str, Sequence[Measured]] = {
            "crafts": self.crafts,
            "victims": self.victims,
            "timings": self.timings,
        }
        tree = {kind: [dataclasses.asdict(entry) for entry in entries] for kind, entries in kinds.items()}
        write_atomically(path, to_json(tree))

    def craft(self, config: CraftConfig, source: Source, samples: int, workers: int) -> Calibration:
        """That of a craft with `workers` workers on this machine.

        Raises:
            UsageError: the file has none that fits.
        """

        def measure(folder: Path) -> Calibration:
            self.report(f"short crafts with {config.method.name}, {workers} worker(s)")
            return calibrate(config, source, samples, workers, folder)

        return self._find(self.crafts, run_settings(config, source), workers, measure)

    def timing(self, config: CraftConfig, source: Source, workers: int) -> Timing:
        """Timed crafts with `workers` workers on this machine, of a method that counts no work.

        Raises:
            UsageError: the file has none that fits.
        """

        def measure(folder: Path) -> Timing:
            self.report(f"crafts of some samples with {config.method.name}, {workers} worker(s), a minute each at most")
            return time_craft(config, source, workers, folder)

        return self._find(self.timings, timing_settings(config, source), workers, measure)

    def victim(self, trial: VictimTrial, source: Source, workers: int) -> VictimCalibration:
        """That of a victim next to others, one on each of `workers` workers.

        Raises:
            UsageError: the file has none that fits.
        """

        def measure(folder: Path) -> VictimCalibration:
            self.report(f"short trainings of {trial.victim.network}, batch {trial.victim.batch}, {workers} worker(s)")
            return calibrate_victim(trial, source, workers, folder)

        return self._find(self.victims, victim_settings(trial, source), workers, measure)

    def _find(self, known: list[Known], settings: Tree, workers: int, measure: Callable[[Path], Known]) -> Known:
        for entry in known:
            if entry.settings == settings and entry.workers == workers:
                return entry
        if self.path is not None:
            raise UsageError(f"{self.path} {_misfit(known, settings, workers)}; name a new file, which will be written")
        with tempfile.TemporaryDirectory(prefix="hpcule-plan-") as folder:
            known.append(measure(Path(folder) / "trial"))
        return known[-1]


def _misfit(known: Sequence[Measured], settings: Tree, workers: int) -> str:
    """Why none of the entries fits, for the nearest one."""
    wanted = flat({**settings, "workers": workers})
    differences = [
        [(name, seen.get(name), value) for name, value in wanted.items() if seen.get(name) != value]
        for seen in (flat({**entry.settings, "workers": entry.workers}) for entry in known)
    ]
    if not differences:
        return "holds no such calibration"
    name, seen, value = min(differences, key=len)[0]
    return f"was measured with {name} {seen}, not {value}"
