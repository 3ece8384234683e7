"""Networks of the literature, by name."""

from numbanet.zoo.alexnet import AlexNet, AlexNetOf2012, alexnet, alexnet_2012
from numbanet.zoo.lenet import LeNet5, LeNet5Of1998, lenet5, lenet5_1998, map_criterion
from numbanet.zoo.network import FeatureExtractor, Network, Stage
from numbanet.zoo.registry import ModelInfo, create_model, list_models, model_info, register_model

__all__ = [
    "FeatureExtractor", "ModelInfo", "Network", "Stage", "create_model", "list_models", "model_info", "register_model",
    "AlexNet", "AlexNetOf2012", "alexnet", "alexnet_2012",
    "LeNet5", "LeNet5Of1998", "lenet5", "lenet5_1998", "map_criterion",
]
