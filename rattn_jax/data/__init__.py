"""Datasets: `open_dataset(name, data_dir)`, `dataset_spec(name)`."""

from rattn_jax.data.catalog import KNOWN, dataset_spec, open_dataset
from rattn_jax.data.dataset import Dataset, DatasetSpec

__all__ = ["KNOWN", "Dataset", "DatasetSpec", "dataset_spec", "open_dataset"]
