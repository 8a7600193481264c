"""Handwritten digits that come with scikit-learn: real data without network or account.

The test part of the UCI set "Optical Recognition of Handwritten Digits": 1,797 scans of 8x8
pixels with values 0..16.
"""

import numpy as np

from rattn_jax.data.dataset import ArraySource, Dataset


def open_digits() -> Dataset:
    """The digits as RGB with equal channels: images uint8 [N, 8, 8, 3], classes "0".."9".

    1,437 training and 360 test examples. With the examples sorted by class, and in the file's
    order within a class, every fifth is a test example. No random generator takes part, so the
    split depends on no version of numpy or scikit-learn, and every class keeps its share to within
    one example. As with a random split, writers occur on both sides: errors are lower than on
    unseen writers.
    """
    from sklearn.datasets import load_digits

    bundled = load_digits()
    values = bundled.images.astype(np.int32)  # [1797, 8, 8], 0..16
    gray = ((values * 255 + 8) // 16).astype(np.uint8)  # nearest integer
    images = np.repeat(gray[..., None], 3, axis=-1)
    labels = bundled.target.astype(np.int32)

    by_class = np.argsort(labels, kind="stable")
    is_test = np.zeros(len(labels), bool)
    is_test[by_class[::5]] = True
    return Dataset(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        train=ArraySource("digits/train", images[~is_test], labels[~is_test]),
        test=ArraySource("digits/test", images[is_test], labels[is_test]),
        image_size=8,
    )
