"""Networks of the literature, by name."""

from numbanet.zoo.lenet import LeNet5, LeNet5Of1998, lenet5, lenet5_1998, map_criterion
from numbanet.zoo.network import FeatureExtractor, Network, Stage
from numbanet.zoo.registry import ModelInfo, create_model, list_models, model_info, register_model

__all__ = [
    "FeatureExtractor", "LeNet5", "LeNet5Of1998", "ModelInfo", "Network", "Stage", "create_model", "lenet5", "lenet5_1998", "list_models", "map_criterion",
    "model_info", "register_model",
]
