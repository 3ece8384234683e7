"""Data: datasets, samplers, loaders and transforms. NumPy and threads; tensors come in where batches are collated."""

from numbanet.data import datasets, transforms
from numbanet.data.collate import default_collate
from numbanet.data.dataset import (
    ArrayDataset,
    CollatedBatch,
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from numbanet.data.images import load_image
from numbanet.data.loader import DataLoader, WorkerInfo, get_worker_info
from numbanet.data.randomness import sample_generator, sample_uniforms
from numbanet.data.samplers import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

__all__ = [
    "ArrayDataset", "BatchSampler", "CollatedBatch", "ConcatDataset", "DataLoader", "Dataset", "IterableDataset",
    "RandomSampler", "Sampler", "SequentialSampler", "Subset", "SubsetRandomSampler", "TensorDataset",
    "WeightedRandomSampler", "WorkerInfo", "datasets", "default_collate", "get_worker_info", "load_image",
    "random_split", "sample_generator", "sample_uniforms", "transforms",
]
