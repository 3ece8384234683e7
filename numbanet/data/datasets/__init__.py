"""Data sets: digits that come with the package, IDX files, and folders of images."""

from numbanet.data.datasets.folder_layout import ImageData, open_image_data
from numbanet.data.datasets.idx import read_idx
from numbanet.data.datasets.image_folder import ImageFolder
from numbanet.data.datasets.mnist import MNIST, FashionMNIST, MNISTSample
from numbanet.data.datasets.registry import create_dataset, list_datasets, register_dataset

__all__ = ["MNIST", "FashionMNIST", "ImageData", "ImageFolder", "MNISTSample", "create_dataset", "list_datasets", "open_image_data",
           "read_idx", "register_dataset"]
