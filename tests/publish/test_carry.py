"""A perturbation at another size keeps its budget, and comes back where a victim resizes the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dicoms import noise, write_dicom
from PIL import Image
from torch.nn import functional

from hpcule.data.opening import Opening
from hpcule.data.resize import resize_planes
from hpcule.interface.stores import open_store
from hpcule.publish.carry import carried, publishing
from hpcule.publish.export import export
from hpcule.store.grey import is_grey
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

EPSILON = 8


def crafted(size=32, seed=0, smooth=0):
    """Random signs, smoothed by so many pixels."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.choice([-1.0, 1.0], (1, 3, size, size)))
    if smooth:
        noise = functional.avg_pool2d(noise, 2 * smooth + 1, 1, smooth, count_include_pad=False).sign()
    return (EPSILON * noise[0]).round().int().numpy().astype(np.int8)


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (100, 333), (33, 31), (20, 500), (16, 16), (1, 1)])
def test_it_has_the_size_and_keeps_the_budget(size):
    found = carried(crafted(), size, EPSILON)
    assert found.shape == (3, *size)
    assert np.abs(found).max() <= EPSILON


def test_at_the_same_size_it_is_the_same():
    assert np.array_equal(carried(crafted(), (32, 32), EPSILON), crafted())


@pytest.mark.parametrize(("smooth", "least"), [(0, 0.9), (1, 0.97), (3, 0.99)])
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (150, 417)])
def test_a_victims_resize_gives_it_back(size, smooth, least):
    delta = crafted(smooth=smooth)
    clean = np.full((3, *size), 128, np.uint8)
    published = (clean + np.rint(carried(delta, size, EPSILON))).astype(np.uint8)
    back = resize_planes(published, 32).astype(int) - 128
    assert np.corrcoef(back.ravel(), delta.ravel())[0, 1] > least
    plain = functional.interpolate(torch.from_numpy(delta[None]).float(), size, mode="bicubic").clamp(-8, 8).round()
    uncorrected = resize_planes((clean + plain[0].numpy()).astype(np.uint8), 32).astype(int) - 128
    assert np.abs(back - delta).mean() < np.abs(uncorrected - delta).mean()


@pytest.mark.parametrize("opening", [{"image_size": 16}, {"tile_size": 16}])
@pytest.mark.parametrize("kind", ["png", "dicom"])
def test_grey_stays_grey_for_whoever_asks(tmp_path, make_store, kind, opening):
    for number in range(6):
        pixels = noise(40, 36, 3, low=30, high=220, seed=number)
        pixels = pixels if number % 2 else np.repeat(pixels[..., :1], 3, axis=2)
        path = tmp_path / "data" / "ab"[number // 3] / f"{number}.{kind[:3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "png":
            Image.fromarray(pixels).save(path)
        else:
            write_dicom(path.with_suffix(".dcm"), pixels, stored_as="RGB")
    data = str(tmp_path / "data")
    source = Opening(**opening).source(data)
    store, *_ = make_store(source, working_size=16, applied_at="working", config=dict(opening), unit="class", groups=2)
    export(Vault(store), source, tmp_path / "copy")
    exported, before = (Opening(**opening).source(str(tmp_path / name)) for name in ("copy", "data"))
    files = exported if "image_size" in opening else exported.images
    greys = [bool(is_grey(files.native(number).shown())) for number in range(6)]
    assert greys == [number % 2 == 0 for number in range(6)]
    ids = np.arange(len(source))
    with StoreReader(Vault(store)) as reader:
        assert np.array_equal(publishing(reader, source)(ids, before.read(ids)), exported.read(ids))
    for number, (image, _) in enumerate(open_store(store).published(data)):
        assert np.array_equal(image, files.native(number).shown())
