"""Datasets: `load_dataset(name, data_dir)`, `dataset_spec(name)`."""

from rattn_jax.data.dataset import (
    DATASETS,
    Dataset,
    DatasetSpec,
    Split,
    dataset_spec,
    load_dataset,
)

__all__ = ["DATASETS", "Dataset", "DatasetSpec", "Split", "dataset_spec", "load_dataset"]
