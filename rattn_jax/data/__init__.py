"""Datasets: `open_dataset(name, data_dir)`, `dataset_spec(name)`, and how to read them."""

from rattn_jax.data.catalog import KNOWN, dataset_spec, open_dataset
from rattn_jax.data.dataset import Dataset, DatasetSpec
from rattn_jax.data.read import Split, load_split

__all__ = [
    "KNOWN",
    "Dataset",
    "DatasetSpec",
    "Split",
    "dataset_spec",
    "load_split",
    "open_dataset",
]
