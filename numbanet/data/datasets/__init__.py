"""Data sets: digits that come with the package, scenes made up from a seed, and files: IDX, CIFAR, CSV lists, packed arrays, folders."""

from numbanet.data.datasets.cifar import CIFAR10, CIFAR100
from numbanet.data.datasets.csv_list import CSVDataset
from numbanet.data.datasets.digit_scenes import DigitScenes
from numbanet.data.datasets.folder_layout import ImageData, image_splits, open_image_data
from numbanet.data.datasets.idx import read_idx
from numbanet.data.datasets.image_files import ImageFiles
from numbanet.data.datasets.image_folder import ImageFolder
from numbanet.data.datasets.mask_folder import MaskFolder, load_mask
from numbanet.data.datasets.mnist import MNIST, FashionMNIST, MNISTSample
from numbanet.data.datasets.packed import PackedDataset
from numbanet.data.datasets.registry import create_dataset, list_datasets, register_dataset
from numbanet.data.datasets.synthetic_scenes import Scene, SyntheticScenes

__all__ = ["CIFAR10", "CIFAR100", "CSVDataset", "DigitScenes", "FashionMNIST", "ImageData", "ImageFiles", "ImageFolder", "MNIST",
           "MNISTSample", "MaskFolder", "PackedDataset", "Scene", "SyntheticScenes", "create_dataset", "image_splits", "list_datasets",
           "load_mask", "open_image_data", "read_idx", "register_dataset"]
