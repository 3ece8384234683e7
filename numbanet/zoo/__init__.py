"""Networks of the literature, by name."""

from numbanet.zoo.alexnet import AlexNet, AlexNetOf2012, alexnet, alexnet_2012
from numbanet.zoo.lenet import LeNet5, LeNet5Of1998, lenet5, lenet5_1998, map_criterion
from numbanet.zoo.network import FeatureExtractor, Network, Stage
from numbanet.zoo.registry import ModelInfo, create_model, list_models, model_info, register_model
from numbanet.zoo.resnet import ResNet, resnet18, resnet34, resnet50, resnet50_v1, resnet101, resnet152
from numbanet.zoo.resnet_cifar import CifarResNet, resnet20_cifar, resnet56_cifar
from numbanet.zoo.resnext import resnext50_32x4d, resnext101_32x8d, resnext101_64x4d
from numbanet.zoo.wide_resnet import wide_resnet50_2, wide_resnet101_2

__all__ = [
    "FeatureExtractor", "ModelInfo", "Network", "Stage", "create_model", "list_models", "model_info", "register_model",
    "AlexNet", "AlexNetOf2012", "alexnet", "alexnet_2012",
    "LeNet5", "LeNet5Of1998", "lenet5", "lenet5_1998", "map_criterion",
    "ResNet", "resnet18", "resnet34", "resnet50", "resnet50_v1", "resnet101", "resnet152",
    "CifarResNet", "resnet20_cifar", "resnet56_cifar",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
    "wide_resnet50_2", "wide_resnet101_2",
]
