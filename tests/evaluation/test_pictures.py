import io

import numpy as np
import pytest
from PIL import Image

from hpcule.evaluation.pictures import Pictures, choose_samples, delta_picture, gain, png, thinning, triplets


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels):
    image = np.random.default_rng(0).integers(0, 256, (channels, 9, 14), dtype=np.uint8)
    pixels = decoded(png(image))
    assert np.array_equal(pixels if channels == 1 else np.moveaxis(pixels, 2, 0), image[0] if channels == 1 else image)


def test_other_channel_counts_show_the_first_channel():
    image = np.random.default_rng(0).integers(0, 256, (5, 9, 14), dtype=np.uint8)
    assert np.array_equal(decoded(png(image)), image[0])


def test_large_images_are_thinned_without_mixing_pixels():
    image = np.random.default_rng(0).integers(0, 256, (1, 700, 513), dtype=np.uint8)
    assert thinning(700, 513) == 3
    assert thinning(256, 256) == 1
    assert np.array_equal(decoded(png(image)), image[0, ::3, ::3])


def test_grey_is_zero_and_the_largest_change_nearly_reaches_the_ends():
    delta = np.array([[[-8, 0, 8, 4]]], dtype=np.int8)
    assert gain(delta, 255) == 15
    assert delta_picture(delta, 15, 255).tolist() == [[[8, 128, 248, 188]]]


def test_16_bit_deltas_are_shown_in_the_same_way():
    delta = np.array([[[-2056, 0, 2056, 1028]]], dtype=np.int16)
    assert gain(delta, 65535) == 15
    assert delta_picture(delta, 15, 65535).tolist() == [[[8, 128, 248, 188]]]


@pytest.mark.parametrize(("delta", "expected"), [([0], 1), ([-128], 1), ([127], 1), ([1], 127)])
def test_gain_at_the_ends_of_its_range(delta, expected):
    assert gain(np.array(delta, np.int8), 255) == expected


def test_large_changes_stay_on_the_scale():
    assert delta_picture(np.array([[[-255, 255]]]), 1, 255).tolist() == [[[0, 255]]]


def test_triplets_carry_the_three_images(pictures):
    shown = list(triplets(pictures, 255))
    assert [triplet.name for triplet in shown] == pictures.names
    assert all(
        address.startswith("data:image/png;base64,")
        for triplet in shown
        for address in (triplet.clean, triplet.delta, triplet.protected)
    )
    assert shown[0].clean != shown[0].protected


def test_a_name_for_each_sample(pictures):
    with pytest.raises(ValueError, match="shorter"):
        list(triplets(Pictures(pictures.clean, pictures.delta, pictures.protected, ["one"]), 255))


def slow_choice(labels, count):
    """First sample of each class, then second of each, until there are enough."""
    queues = [[i for i, label in enumerate(labels) if label == k] for k in sorted(set(labels))]
    chosen = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return sorted(chosen, key=lambda i: (labels[i], i))


@pytest.mark.parametrize(("classes", "n", "count"), [(10, 200, 8), (2, 50, 8), (3, 50, 8), (4, 5, 8), (300, 1000, 8)])
def test_samples_come_from_as_many_classes_as_possible(classes, n, count):
    labels = np.random.default_rng(1).integers(0, classes, n)
    assert choose_samples(labels, count).tolist() == slow_choice(labels.tolist(), count)


def test_a_rare_class_is_used_up():
    assert choose_samples(np.array([0, 0, 0, 1, 0, 0]), 4).tolist() == [0, 1, 2, 3]
