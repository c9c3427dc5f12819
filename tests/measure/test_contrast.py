import numpy as np

from hpcule.measure.contrast import WINDOW, local_contrast


def test_contrast_is_the_deviation_of_brightness_in_the_square_around_a_pixel():
    samples = np.random.default_rng(0).integers(0, 256, (2, 3, 14, 20), dtype=np.uint8)
    found = local_contrast(samples)
    reach = WINDOW // 2
    bright = np.pad(samples.mean(1), ((0, 0), (reach, reach), (reach, reach)), "symmetric")
    for row in range(14):
        for column in range(20):
            around = bright[:, row : row + WINDOW, column : column + WINDOW]
            np.testing.assert_allclose(found[:, 0, row, column], around.std((1, 2)), atol=1e-6)


def test_a_flat_image_has_none_whatever_is_beside_it():
    samples = np.random.default_rng(1).integers(0, 65536, (3, 1, 12, 12), dtype=np.uint16)
    samples[1] = 40000
    found = local_contrast(samples)
    assert (found[1] < 1e-2).all()
    assert (found[0] == local_contrast(samples[:1])[0]).all()
