from pathlib import Path

import tensorflow_datasets as tfds

from rattn_jax.data.class_names import readable_names


def test_all_classes_of_imagenet_and_cifar_have_readable_names():
    root = Path(tfds.__file__).parent
    labels = (root / "image_classification" / "imagenet_resized_labels.txt").read_text().split()
    names = readable_names(labels)
    assert len(set(names)) == 1_000
    assert not set(names) & set(labels)
    assert readable_names(("n01484850", "aquarium_fish", "cat", "my_cat")) == (
        "great white shark",
        "aquarium fish",
        "cat",
        "my_cat",
    )
