from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    """Run code in a fresh interpreter: operators, once declared, stay for the life of a process."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_torchvision_imports_and_builds_a_model_after_two_calls() -> None:
    output = run(
        "from hpcule.world.torchvision_compat import declare_missing_operators as declare\n"
        "declare(); declare()\n"
        "from torchvision import datasets, models, transforms\n"
        "declare()\n"
        "print(sum(p.numel() for p in models.resnet50().parameters()))\n"
    )
    assert int(output) == 25_557_032


def test_operators_that_exist_are_left_alone() -> None:
    output = run(
        "import torch\n"
        "torch.library.define('torchvision::nms', '(Tensor x) -> Tensor')\n"
        "from hpcule.world import torchvision_compat\n"
        "torchvision_compat._load_compiled_part = lambda: None\n"
        "torchvision_compat.declare_missing_operators()\n"
        "print(torch.ops.torchvision.nms.default._schema)\n"
        "print(torch.ops.torchvision.qnms.default._schema)\n"
    )
    first, second = output.splitlines()
    assert first == "torchvision::nms(Tensor x) -> Tensor"
    assert second == "torchvision::qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
