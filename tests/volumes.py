"""Volumes that tests make: spheres of two textures in noise, with masks, in the layouts that people have."""

import json

import nibabel
import numpy as np

from hpcule.data.annotations import ArrayMasks, MaskNumbers
from hpcule.data.source import Source

AFFINE = np.array([[-0.7, 0, 0, 10], [0, 0.7, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
"""Millimetres of voxels: the first axis from right to left, slices thicker than their pixels."""
NAMES = ("background", "striped", "smooth")


def sphere_volume(number, size=32, seed=0):
    """Values int16 [X, Y, Z] of two spheres in noise, and their mask uint8: 1 is striped, 2 smooth."""
    draws = np.random.default_rng([seed, number])
    places = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), -1).astype(float)
    values, mask = draws.normal(0, 120, (size,) * 3), np.zeros((size,) * 3, np.uint8)
    for kind in (1, 2):
        radius = draws.uniform(0.15, 0.28) * size
        centre = draws.uniform(radius, size - radius, 3)
        inside = np.linalg.norm(places - centre, axis=-1) <= radius
        wave = 250 * np.sign(np.sin(places @ (np.array([1, 1, 0]) * 1.6))) if kind == 1 else 0
        values = np.where(inside, 350 + wave + draws.normal(0, 40, values.shape), values)
        mask[inside] = kind
    return values.round().astype(np.int16), mask


def write_volume(path, values, affine=AFFINE):
    """A NIfTI file with this place in space, and with texts that nobody should publish."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    image.header["descrip"] = b"DOE^JOHN"
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def write_pairs(folder, count=6, size=8, *, first=0, ending=".nii.gz"):
    """`images/NAME` and `masks/NAME`."""
    for number in range(first, first + count):
        values, mask = sphere_volume(number, size)
        write_volume(folder / "images" / f"p{number}{ending}", values)
        write_volume(folder / "masks" / f"p{number}{ending}", mask)
    return folder


def write_nnunet(folder, count=6, size=8, tests=0):
    """`imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, and `dataset.json`."""
    for number in range(count + tests):
        values, mask = sphere_volume(number, size)
        part = "Tr" if number < count else "Ts"
        write_volume(folder / f"images{part}" / f"P{number}_0000.nii.gz", values)
        write_volume(folder / f"labels{part}" / f"P{number}.nii.gz", mask)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {name: number for number, name in enumerate(NAMES)},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def write_decathlon(folder, count=6, size=8):
    """MONAI's list: `training` with an image and a label each, and labels by number."""
    entries = []
    for number in range(count):
        values, mask = sphere_volume(number, size)
        write_volume(folder / "imagesTr" / f"liver_{number}.nii.gz", values)
        write_volume(folder / "labelsTr" / f"liver_{number}.nii.gz", mask)
        entries.append({"image": f"./imagesTr/liver_{number}.nii.gz", "label": f"./labelsTr/liver_{number}.nii.gz"})
    labels = {str(number): name for number, name in enumerate(NAMES)}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "training": entries, "test": []}))
    return folder


class VolumeToys(Source):
    """Spheres in memory, as `NiftiVolumes` reads them, and a class each."""

    name, kind, split, levels = "spheres", "npz", "all", 255

    def __init__(self, count=20, size=8, *, first=0, classes=True):
        pairs = [sphere_volume(number, size) for number in range(first, first + count)]
        rows = [np.stack([pair[part].transpose(2, 1, 0).reshape(-1, size) for pair in pairs]) for part in (0, 1)]
        self.samples = (rows[0][:, None] / 8 + 90).clip(0, 255).astype(np.uint8)
        self.masks = ArrayMasks(rows[1], MaskNumbers.named(dict(enumerate(NAMES))))
        self.shape, self.depth = self.samples.shape[1:], size
        self.labels = np.arange(count) % 2 if classes else None
        self.class_names = ("a", "b") if classes else None

    def __len__(self):
        return len(self.samples)

    def read(self, ids):
        return self.samples[ids]
