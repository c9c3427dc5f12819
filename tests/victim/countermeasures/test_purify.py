from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from toys import ToySource, alone

from hpcule.config.errors import DataError, UsageError
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.purify import diffused, purification
from hpcule.victim.countermeasures.table import Countermeasures, countermeasure
from hpcule.victim.published import Published
from hpcule.victim.reading import ReadingSteps
from hpcule.world.torchvision_compat import declare_missing_operators

SIZE = 8


@pytest.fixture(scope="module")
def diffusers():
    declare_missing_operators()
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def model(diffusers, tmp_path_factory):
    """A folder as diffusers saves a DDPM, with random weights."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=SIZE,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    folder = tmp_path_factory.mktemp("ddpm")
    network.save_pretrained(folder / "unet")
    diffusers.DDPMScheduler().save_pretrained(folder / "scheduler")
    return folder


class Darker(nn.Module):
    """Halves all values."""

    def forward(self, images):
        return images / 2


class Smaller(nn.Module):
    """Drops a column."""

    def forward(self, images):
        return images[..., 1:]


def export(network, path, *, fixed=False):
    shapes = None if fixed else ({0: torch.export.Dim("n")},)
    program = torch.export.export(network, (torch.zeros(3, 3, SIZE, SIZE),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return str(path)


def samples_of(count=7):
    return ToySource(count).read(np.arange(count))


def change(text, path, *, seed=0):
    return purification(countermeasure(text), path, 255, seed, torch.device("cpu"))


def test_a_diffusion_model_is_followed_as_its_own_library_does(diffusers, model):
    network = diffusers.UNet2DModel.from_pretrained(model / "unet").eval()
    scheduler = diffusers.DDPMScheduler.from_pretrained(model / "scheduler")
    scheduler.set_timesteps(1000)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    steps, ours, theirs = 20, torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)

    def denoise(noisy, step):
        return network(noisy, step).sample

    with torch.no_grad():
        found = diffused(
            denoise, scheduler.alphas_cumprod, steps, images, lambda step: torch.randn(images.shape, generator=ours)
        )
        seen = scheduler.add_noise(images, torch.randn(images.shape, generator=theirs), torch.tensor([steps - 1]))
        for step in range(steps - 1, -1, -1):
            seen = scheduler.step(denoise(seen, step), step, seen, generator=theirs).prev_sample
    assert torch.allclose(found, seen, atol=1e-4)
    assert not torch.allclose(found, images, atol=0.05)


def test_a_model_of_one_image_gives_that_image(diffusers):
    """Known answer: where all data are one image, the best denoiser knows it, and every sample ends there."""
    kept = diffusers.DDPMScheduler().alphas_cumprod
    target = torch.linspace(-0.8, 0.8, 48).view(1, 3, 4, 4)
    generator = torch.Generator().manual_seed(0)
    found = diffused(
        lambda seen, step: (seen - kept[step].sqrt() * target) / (1 - kept[step]).sqrt(),
        kept,
        100,
        target.flip(-1).repeat(5, 1, 1, 1),
        lambda step: torch.randn(5, 3, 4, 4, generator=generator),
    )
    assert torch.allclose(found, target.expand_as(found), atol=1e-3)


def test_noise_belongs_to_a_sample_and_a_seed(model):
    samples, ids = samples_of(), np.arange(7)
    whole = change("diffusion-5", str(model))(ids, samples)
    parts = [change("diffusion-5", str(model))(ids[rows], samples[rows]) for rows in (slice(3), slice(3, 7))]
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert (whole != samples).mean() > 0.5
    assert np.abs(change("diffusion-5", str(model), seed=1)(ids, samples).astype(int) - whole).max() > 5


def test_a_program_rebuilds_samples_before_other_steps_see_them(tmp_path):
    path = export(Darker(), tmp_path / "darker.pt2")
    train = Published(ToySource(130, shape=(3, SIZE, SIZE)), resident=2**20)
    config = VictimConfig(countermeasures=Countermeasures.parse(("rebuild", "bit-depth-1")), purifier=path)
    seen, _ = ReadingSteps(train, config, 0, alone()).train.take(np.arange(130))
    originals, _ = train.take(np.arange(130))
    assert torch.equal(seen, (originals / 2).round().to(torch.uint8) >> 7 << 7)
    config = VictimConfig(countermeasures=Countermeasures.parse("rebuild"), purifier=path)
    once, _ = ReadingSteps(train, config, 0, alone()).train.take(np.arange(130))
    assert torch.equal(once, (originals / 2).round().to(torch.uint8))


def test_what_cannot_purify_is_refused(tmp_path, model, diffusers):
    ids, samples = np.arange(7), samples_of()
    with pytest.raises(UsageError, match=r"diffusion needs a checkpoint: --set victim\.purifier=PATH"):
        change("diffusion", None)
    with pytest.raises(DataError, match=r"absent: not a folder of a DDPM"):
        change("diffusion", str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"not a program that torch\.export\.save has written"):
        change("rebuild", str(model / "unet" / "config.json"))
    with pytest.raises(DataError, match=r"gives images \[64, 3, 8, 7\] for \[64, 3, 8, 8\]"):
        change("rebuild", export(Smaller(), tmp_path / "smaller.pt2"))(ids, samples)
    with pytest.raises(DataError, match=r"export it for batches of any size"):
        change("rebuild", export(Darker(), tmp_path / "three.pt2", fixed=True))(ids, samples)
    with pytest.raises(DataError, match=r"for images of 3 channel\(s\) and 8 pixels; here \[1, 8, 8\]"):
        change("diffusion-2", str(model))(ids, samples[:, :1])
    diffusers.DDPMScheduler(num_train_timesteps=50).save_pretrained(tmp_path / "short" / "scheduler")
    (tmp_path / "short" / "unet").symlink_to(model / "unet")
    with pytest.raises(UsageError, match=r"diffusion-100: .* has 50 steps"):
        change("diffusion-100", str(tmp_path / "short"))
    settings = tmp_path / "short" / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "prediction_type": "v_prediction"}))
    with pytest.raises(DataError, match="predicts v_prediction"):
        change("diffusion-10", str(tmp_path / "short"))
