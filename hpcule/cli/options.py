"""Options that several verbs share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from hpcule.craft.config import CraftConfig
    from hpcule.data.source import Source

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What a verb's `add_to` adds its parser to."""


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the option --data."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="a path (npz, HDF5, folder of images, of DICOM, NIfTI, WAV, FLAC or IDX files) or a name (digits, "
        "fashion-mnist, cifar10, oxford-pets, flowers-17, flowers-102, medmnist:NAME); DATA:SPLIT is explicit",
    )


def add_access(parser: argparse.ArgumentParser, also: str = "") -> None:
    """Add the options --key and --strict; `also` says what else the latter refuses."""
    add_key(parser)
    refused = ", ".join(filter(None, ["a store that others may read", also]))
    parser.add_argument("--strict", action="store_true", help=f"refuse {refused}, instead of warning")


def add_key(parser: argparse.ArgumentParser) -> None:
    """Add the option --key."""
    parser.add_argument("--key", metavar="KEY", help="of an encrypted store: a file, or keyring:NAME; see `hpcule key`")


def add_test(parser: argparse.ArgumentParser) -> None:
    """Add the option --test."""
    parser.add_argument("--test", metavar="DATA", help="clean test samples (default: the test split of --data)")


def add_out(parser: argparse.ArgumentParser, default: str, what: str) -> None:
    """Add the option --out."""
    parser.add_argument("--out", type=Path, default=Path(default), metavar="DIR", help=f"{what} (default: {default})")


def add_set(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option --set."""
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE", help=what)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options --set and --config."""
    add_set(parser, "change a setting, for example method.epsilon=8, seed=1, deterministic=true; may be repeated")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Add the options --preset and --strength."""
    parser.add_argument("--preset", metavar="NAME", help="paper (default), small (minutes) or smoke (seconds)")
    parser.add_argument(
        "--strength", choices=("subtle", "standard", "strong"), help="half, once or twice the usual method.epsilon"
    )


def configured(
    options: argparse.Namespace, opened: Callable[[CraftConfig], Source] | None = None
) -> tuple[CraftConfig, Source]:
    """The CraftConfig of METHOD, --data, --preset, --config, --strength and --set, and its source.

    Args:
        options: the command's.
        opened: opens the source; None: as the configuration says.
    """
    from hpcule.craft.strength import epsilon

    config = settled(options)
    source = opened(config) if opened else config.source(config.data)
    if options.strength:
        config = settled(options, {"method": {"epsilon": epsilon(options.strength, options.method, source)}})
    return config, source


def settled(options: argparse.Namespace, also: Mapping[str, object] | None = None) -> CraftConfig:
    """The CraftConfig of METHOD, --data, --preset, --config and --set, with no look at the data; `also` is laid over
    --config."""
    from hpcule.config.tree import load_yaml, merged
    from hpcule.craft.table import configure

    file = merged(load_yaml(options.config) if options.config else {}, also or {})

    def of(overrides: Sequence[str]) -> CraftConfig:
        return configure(options.method, options.data, preset=options.preset, file=file, overrides=overrides)

    config = of(options.overrides)
    if patterns := getattr(options, "exclude", ()):
        return of([*options.overrides, f"exclude={json.dumps([*config.exclude, *patterns])}"])
    return config


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options --workers, --set, --config, --submit, --dry-run and --json."""
    parser.add_argument("--workers", type=positive, metavar="N", help="start N local processes (default: 1)")
    add_settings(parser)
    parser.add_argument(
        "--submit",
        metavar="SITE",
        help="hand this command to a batch system: the name of a site, or a YAML file",
    )
    parser.add_argument("--dry-run", action="store_true", help="with --submit: print the script, submit nothing")
    add_json(parser)


def add_refresh_code(parser: argparse.ArgumentParser) -> None:
    """Add the option --refresh-code."""
    parser.add_argument(
        "--refresh-code",
        action="store_true",
        help="let jobs run a new copy of hpcule, instead of that of an earlier submission of the same version",
    )


def add_json(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Add the option --json."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_figures(parser: argparse.ArgumentParser) -> None:
    """Add the option --figures."""
    parser.add_argument(
        "--figures",
        choices=("pdf", "svg", "png"),
        help="also write the figures of the report for a paper, under DIR/figures (needs the extra `figures`)",
    )


def check_figures(options: argparse.Namespace) -> None:
    """Check that what `--figures` asks for can be drawn, before anything that takes time.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if options.figures:
        from hpcule.report.canvas import require_matplotlib

        require_matplotlib()


def tell(options: argparse.Namespace, results: Mapping[str, object], report: Callable[[], None]) -> None:
    """Print results as JSON where --json asks for it, else as `report` does, and where the report is."""
    from hpcule.cli.opened import show

    if options.json:
        print(json.dumps(results))
    else:
        report()
        show(f"Report: {options.out / 'report.html'}")


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number
