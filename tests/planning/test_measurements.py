import dataclasses
import json

import pytest
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.craft.table import configure
from hpcule.planning.calibrate import Calibration, Rate, run_settings
from hpcule.planning.measurements import Measurements

SOURCE = ToySource(60)


def configured(name="pil", *overrides):
    return configure(name, "toys", preset=None, file={}, overrides=list(overrides))


def refuse(what):
    raise AssertionError(f"measures {what}")


def make_calibration(config, workers=2):
    numbers = {
        field.name: 0.5 for field in dataclasses.fields(Calibration) if field.name.endswith(("seconds", "_share"))
    }
    rate = Rate(
        stage="noise", pass_seconds=1e-3, call_seconds=0.0, sum_seconds=0.0, start_seconds=0.0, once_seconds=0.1
    )
    return Calibration(
        hpcule="0",
        settings=run_settings(config, SOURCE),
        workers=workers,
        threads=1,
        cores=2,
        device="cpu",
        base_bytes=1e8,
        load=0.0,
        rates=(rate,),
        **numbers,
    )


@pytest.fixture
def file(tmp_path):
    """A calibration of PIL with two workers."""
    path = tmp_path / "calibration.json"
    Measurements(refuse, [make_calibration(configured())]).write(path)
    return path


def test_what_was_measured_is_read_again_and_not_measured(file):
    known = Measurements.read(file, refuse)
    found = known.craft(configured(), SOURCE, 10**8, 2)
    assert found == make_calibration(configured())


@pytest.mark.parametrize(
    "same", ["method.epochs=7", "method.batch=64", "method.epsilon=4", "seed=3", "store.shards=9", "method.mix=0.5"]
)
def test_what_a_step_does_not_depend_on_may_differ(file, same):
    assert Measurements.read(file, refuse).craft(configured("pil", same), SOURCE, 60, 2).workers == 2


@pytest.mark.parametrize(
    ("name", "overrides", "source", "workers", "message"),
    [
        ("em", [], SOURCE, 2, "was measured with method.name pil, not em"),
        ("pil", [], SOURCE, 1, "was measured with workers 2, not 1"),
        ("pil", ["method.ghost=64"], SOURCE, 2, "was measured with method.ghost 128, not 64"),
        ("pil", ["deterministic=true"], SOURCE, 2, "was measured with deterministic False, not True"),
        ("pil", [], ToySource(60, (3, 16, 16)), 2, r"was measured with shape \[3, 8, 8\], not \[3, 16, 16\]"),
    ],
)
def test_a_calibration_for_something_else_is_refused(file, name, overrides, source, workers, message):
    with pytest.raises(UsageError, match=f"{message}; name a new file, which will be written"):
        Measurements.read(file, refuse).craft(configured(name, *overrides), source, 60, workers)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"crafts": [{"workers": 1}], "victims": []}', '{"crafts": 3}'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="is no calibration file"):
        Measurements.read(path, refuse)


def test_the_file_is_plain_json(file):
    (entry,) = json.loads(file.read_text())["crafts"]
    assert entry["settings"]["method"]["name"] == "pil"
    assert entry["rates"][0]["stage"] == "noise"
