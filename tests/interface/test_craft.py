"""`hpcule.craft`: the same store as the command, from paths, arrays and data sets, in an unchanged process."""

from __future__ import annotations

import os
import signal
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from interface_data import PILLOW, Items, Tensors, make_images
from PIL import Image

import hpcule
from hpcule.config.errors import DataError, StoreError, UsageError

LSP = {"out": "store", "seed": 3, "settings": {"world.threads": 1}}


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def deltas(path: str | Path) -> np.ndarray:
    store = hpcule.open_store(path)
    return store.delta(range(store.manifest.n))


def test_a_path_gives_the_store_of_the_command(colour_npz: Path, colour_store: Path) -> None:
    from hpcule.cli.main import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    settings = ["--set=seed=3", "--set=world.threads=1", "--json"]
    assert main(["craft", "lsp", "--data", str(colour_npz), "--out", "by-command", *settings]) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert np.array_equal(deltas("by-command"), deltas(colour_store))


def test_what_comes_back(colour_npz: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    result = hpcule.craft("lsp", data=colour_npz, progress=lambda *step: steps.append(step), epsilon=200, **LSP)
    assert (result.method, result.samples, result.workers, result.already_complete) == ("lsp", 70, 1, False)
    assert result.path == Path("store")
    assert result.store.manifest.epsilon == 200
    assert result.store.manifest.source.name == "colours"
    assert steps
    assert all(0 <= done <= total for _, done, total in steps)
    again = hpcule.craft("lsp", data=colour_npz, resume=True, epsilon=200, **LSP)
    assert again.already_complete


def test_nothing_is_printed(colour_npz: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hpcule.craft("lsp", data=colour_npz, **LSP)
    assert capfd.readouterr() == ("", "")


def as_data(kind: str, images: np.ndarray, labels: np.ndarray) -> dict[str, object]:
    """The same samples in another form."""
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2))
    return {
        "array": {"data": images, "labels": labels},
        "list of labels": {"data": images, "labels": labels.tolist()},
        "floats": {"data": images.astype(np.float32) / 255, "labels": labels},
        "tensor": {"data": tensor, "labels": torch.from_numpy(labels)},
        "float tensor": {"data": tensor.float() / 255, "labels": labels},
        "list": {"data": [(image, int(label)) for image, label in zip(images, labels, strict=True)]},
        "pillow": {"data": Items(images, labels, PILLOW)},
        "tensors": {"data": Tensors(images, labels)},
        "unlabelled": {"data": Items(images, None, PILLOW), "labels": labels},
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["array", "list of labels", "floats", "tensor", "float tensor", "list", "pillow", "tensors", "unlabelled"],
)
def test_every_form_of_data_gives_the_same_store(
    kind: str, colours: tuple[np.ndarray, np.ndarray], colour_store: Path, private_temporary_folder: Path
) -> None:
    hpcule.craft("lsp", **as_data(kind, *colours), **LSP)
    assert np.array_equal(deltas("store"), deltas(colour_store))
    fingerprints = {hpcule.open_store(path).manifest.source.fingerprint for path in ("store", colour_store)}
    assert len(fingerprints) == 1
    assert not list(private_temporary_folder.iterdir())


@pytest.mark.parametrize("shape", [(40, 9, 7), (40, 9, 7, 1)])
def test_grey_images_of_16_bits(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
    result = hpcule.craft("lsp", data=images, labels=np.arange(40) % 2, epsilon=5000, **LSP)
    assert (result.store.manifest.levels, result.store.manifest.sample_shape) == (65535, (1, 9, 7))


def test_the_temporary_copy_is_private(colours: tuple[np.ndarray, np.ndarray], private_temporary_folder: Path) -> None:
    seen: list[tuple[str, int]] = []

    def look(stage: str, done: int, total: int) -> None:
        for path in private_temporary_folder.rglob("*"):
            seen.append((path.suffix, stat.S_IMODE(path.stat().st_mode)))

    hpcule.craft("lsp", data=colours[0], labels=colours[1], progress=look, **LSP)
    assert {mode for suffix, mode in seen if suffix == ".npz"} == {0o600}
    assert {mode for suffix, mode in seen if not suffix} == {0o700}


def state_of_the_process() -> dict[str, object]:
    return {
        "threads": torch.get_num_threads(),
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)],
        "group": torch.distributed.is_initialized(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "switches": (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        # torch notes its own cache folder when a part of it is first imported.
        "environment": {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"},
        "running": threading.active_count(),
    }


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_stays_as_it_was(fails: bool, colours: tuple[np.ndarray, np.ndarray]) -> None:
    torch.set_num_threads(2)
    before = state_of_the_process()

    def progress(stage: str, done: int, total: int) -> None:
        assert torch.get_num_threads() == 1
        if fails:
            raise KeyboardInterrupt

    settings = {"preset": "smoke", "deterministic": True, "model_steps": 2, "max_rounds": 1, "surrogate": "convnet"}
    try:
        hpcule.craft("em", data=colours[0], labels=colours[1], progress=progress, out="store", **settings)
    except KeyboardInterrupt:
        assert fails
    assert state_of_the_process() == before
    torch.set_num_threads(1)


def test_outside_the_main_thread(colour_npz: Path) -> None:
    thread = threading.Thread(target=lambda: hpcule.craft("lsp", data=colour_npz, **LSP))
    thread.start()
    thread.join()
    assert hpcule.open_store("store").manifest.complete


def test_two_workers_give_the_same_bytes(
    colours: tuple[np.ndarray, np.ndarray], capfd: pytest.CaptureFixture[str], private_temporary_folder: Path
) -> None:
    settings = {"settings": {"store.shards": 2}, "preset": "smoke", "deterministic": True, "epsilon": np.float64(16)}
    before = {**state_of_the_process(), "torch": None, "numpy": None}
    result = hpcule.craft("pil", data=colours[0], labels=colours[1], out="two", workers=2, **settings)
    assert {**state_of_the_process(), "torch": None, "numpy": None} == before
    assert (result.workers, result.samples) == (2, 70)
    hpcule.craft("pil", data=Items(*colours, PILLOW), out="one", **settings)
    assert np.array_equal(deltas("one"), deltas("two"))
    assert capfd.readouterr() == ("", "")
    assert not list(private_temporary_folder.iterdir())


@pytest.mark.slow
def test_a_failing_worker_is_named(colours: tuple[np.ndarray, np.ndarray]) -> None:
    settings = {"settings": {"store.shards": 2, "world.device": "cuda"}}
    with pytest.raises(UsageError, match=r"world\.device=cuda, but torch sees no CUDA device"):
        hpcule.craft("lsp", data=colours[0], labels=colours[1], out="store", workers=2, **settings)


IMAGES, LABELS = make_images(12, 8, 3, seed=4)
BAD_CALLS = [
    ({"method": "lpp"}, UsageError, "unknown method 'lpp': did you mean"),
    ({"epsilonn": 8}, UsageError, "unknown setting 'method.epsilonn': did you mean 'method.epsilon'"),
    ({"settings": {"sead": 1}}, UsageError, "unknown setting 'sead': did you mean 'seed'"),
    ({"settings": {"world.thread": 1}}, UsageError, "unknown setting 'world.thread': did you mean 'world.threads'"),
    ({"settings": {1: 1}}, UsageError, "1 is no name of a setting"),
    ({"epsilon": "much"}, UsageError, "method.epsilon=much: expected a number"),
    ({"preset": "fast"}, UsageError, "unknown preset 'fast'"),
    ({"strength": "stronger"}, UsageError, "unknown strength 'stronger': did you mean 'strong'"),
    ({"workers": 0}, UsageError, "workers=0: at least 1"),
    ({"workers": 3}, UsageError, "3 workers"),
    ({"key": "no-such-key"}, UsageError, "no-such-key cannot be read"),
    ({"data": "no-such.npz", "labels": None}, UsageError, "no file, folder or data set 'no-such.npz'"),
    ({"data": "digits"}, UsageError, "labels go with arrays"),
    ({"data": 3}, UsageError, "data is int; valid are a path or a name"),
    ({"data": IMAGES[:0]}, DataError, "no samples"),
    ({"data": []}, DataError, "no samples"),
    ({"data": IMAGES[0, 0]}, DataError, r"data has the shape \[8, 3\]; valid are images \[N, H, W\]"),
    ({"data": IMAGES.transpose(0, 3, 1, 2)}, DataError, r"seem to be \[N, C, H, W\].*torch.from_numpy"),
    ({"data": IMAGES.astype(np.int64)}, DataError, "the images are int64.*convert to uint8"),
    (
        {"data": torch.from_numpy(IMAGES).permute(0, 3, 1, 2).half() / 255},
        DataError,
        "float16 does not hold 256 levels",
    ),
    ({"data": IMAGES / np.float32(127) - 1}, DataError, r"sample 0 holds floats from -.*in \[0, 1\]"),
    ({"data": IMAGES / np.float32(256)}, DataError, "no multiples of 1/255.*round"),
    ({"data": np.where(IMAGES[3, 0, 0, 0] == IMAGES, np.nan, IMAGES / 255)}, DataError, "holds floats from nan"),
    ({"labels": None}, DataError, "lsp needs labels and arrays has none"),
    ({"labels": LABELS[:-1]}, DataError, "labels of data: .*11 labels for 12 images"),
    ({"labels": LABELS - 1}, DataError, "negative"),
    ({"data": Items(IMAGES, LABELS, PILLOW)}, UsageError, "labels are given twice"),
    ({"data": Items(IMAGES, LABELS + 0.5, PILLOW), "labels": None}, DataError, "the label is float.* whole number"),
    ({"data": Items(IMAGES, None, PILLOW), "labels": None}, DataError, "needs labels and Items has none"),
    (
        {"data": [*IMAGES[:3], IMAGES[3, 1:]], "labels": None},
        DataError,
        r"sample 3 is \[7, 8, 3\] of uint8, sample 0 is \[8, 8, 3\]",
    ),
    ({"data": [(IMAGES[0], 1, 2)], "labels": None}, DataError, r"has 3 parts; valid are \(image, label\)"),
    ({"data": [{"image": 1}], "labels": None}, DataError, "the image is dict; valid are a PIL image"),
    (
        {"data": [(Image.new("P", (8, 8)), 1)], "labels": None},
        DataError,
        "mode P; valid are L, RGB and I;16: image.convert",
    ),
]


@pytest.mark.parametrize(("changed", "error", "message"), BAD_CALLS, ids=[call[2][:40] for call in BAD_CALLS])
def test_bad_input(
    changed: dict[str, object], error: type[Exception], message: str, private_temporary_folder: Path
) -> None:
    call = {"method": "lsp", "data": IMAGES, "labels": LABELS, "out": "store"} | changed
    with pytest.raises(error, match=message) as caught:
        hpcule.craft(**call)
    assert "\n" not in str(caught.value)
    assert not Path("store").exists()
    assert not list(private_temporary_folder.iterdir())


def test_iterable_data_sets_are_refused() -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(UsageError, match=r"iterable data set.*pass list\(data\)"):
        hpcule.craft("lsp", data=Stream(), out="store")


def test_a_folder_that_is_not_empty(colour_npz: Path) -> None:
    hpcule.craft("lsp", data=colour_npz, **LSP)
    with pytest.raises(UsageError, match="store is not empty"):
        hpcule.craft("lsp", data=colour_npz, **LSP)
    with pytest.raises(StoreError, match="belongs to another run"):
        hpcule.craft("lsp", data=colour_npz, resume=True, epsilon=5, **LSP)


def test_under_a_launcher_of_several_processes(colour_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**started, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="torchrun started 2 processes of this program"):
        hpcule.craft("lsp", data=colour_npz, **LSP)


def test_an_encrypted_store(colour_npz: Path, colour_store: Path) -> None:
    from hpcule.store.keys import make_key

    make_key("key")
    result = hpcule.craft("lsp", data=colour_npz, key="key", **LSP)
    assert "key" not in repr(result)
    ids = [5, 2]
    expected = hpcule.open_store(colour_store).delta(ids)
    assert np.array_equal(result.store.delta(ids), expected)
    assert not result.store.verify(colour_npz)
    with pytest.raises(StoreError, match="is encrypted"):
        hpcule.open_store("store")


def test_sizes_and_strengths(colours: tuple[np.ndarray, np.ndarray]) -> None:
    result = hpcule.craft(
        "pil", data=colours[0], labels=colours[1], out="store", image_size=8, strength="subtle", preset="smoke"
    )
    assert result.store.manifest.sample_shape == (3, 8, 8)
    assert result.store.manifest.epsilon == 4
