"""Networks of the literature, by name."""

from numbanet.zoo.alexnet import AlexNet, AlexNetOf2012, alexnet, alexnet_2012
from numbanet.zoo.convnext import ConvNeXt, convnext_small, convnext_tiny
from numbanet.zoo.densenet import DenseNet, densenet121, densenet161, densenet169, densenet201
from numbanet.zoo.efficientnet import EfficientNet, efficientnet_b0, efficientnet_b1, efficientnet_b2, efficientnet_b3, efficientnet_b4
from numbanet.zoo.efficientnet_lite import EfficientNetLite, efficientnet_lite0
from numbanet.zoo.fcn import FCN, FCNHead, FCNOutputs, FCNResNet, fcn, fcn_resnet50, fcn_resnet101
from numbanet.zoo.googlenet import GoogLeNet, GoogLeNetOf2014, GoogLeNetOutputs, googlenet, googlenet_2014
from numbanet.zoo.inception_v3 import Inception3, InceptionOutputs, inception_v3
from numbanet.zoo.lenet import LeNet5, LeNet5Of1998, lenet5, lenet5_1998, map_criterion
from numbanet.zoo.mnasnet import MNASNet, mnasnet0_5, mnasnet0_75, mnasnet1_0, mnasnet1_3
from numbanet.zoo.mobilenet_v1 import MobileNetV1, mobilenet_v1
from numbanet.zoo.mobilenet_v2 import MobileNetV2, mobilenet_v2
from numbanet.zoo.mobilenet_v3 import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from numbanet.zoo.mtcnn import Faces, ONet, PNet, Proposals, RNet
from numbanet.zoo.network import FeatureExtractor, Network, Stage
from numbanet.zoo.registry import ModelInfo, create_model, list_models, model_info, register_model
from numbanet.zoo.regnet import RegNet, regnet_x_1_6gf, regnet_x_400mf, regnet_y_1_6gf, regnet_y_400mf
from numbanet.zoo.resnet import ResNet, resnet18, resnet34, resnet50, resnet50_v1, resnet101, resnet152
from numbanet.zoo.resnet_cifar import CifarResNet, resnet20_cifar, resnet56_cifar
from numbanet.zoo.resnext import resnext50_32x4d, resnext101_32x8d, resnext101_64x4d
from numbanet.zoo.shufflenet_v2 import ShuffleNetV2, shufflenet_v2_x0_5, shufflenet_v2_x1_0, shufflenet_v2_x1_5, shufflenet_v2_x2_0
from numbanet.zoo.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1, squeezenet1_1_tf
from numbanet.zoo.unet import UNet, unet
from numbanet.zoo.vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from numbanet.zoo.wide_resnet import wide_resnet50_2, wide_resnet101_2
from numbanet.zoo.zfnet import ZFNet512, zfnet512

__all__ = [
    "FeatureExtractor", "ModelInfo", "Network", "Stage", "create_model", "list_models", "model_info", "register_model",
    "AlexNet", "AlexNetOf2012", "alexnet", "alexnet_2012",
    "ZFNet512", "zfnet512",
    "VGG", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    "GoogLeNet", "GoogLeNetOf2014", "GoogLeNetOutputs", "googlenet", "googlenet_2014",
    "Inception3", "InceptionOutputs", "inception_v3",
    "SqueezeNet", "squeezenet1_0", "squeezenet1_1", "squeezenet1_1_tf",
    "LeNet5", "LeNet5Of1998", "lenet5", "lenet5_1998", "map_criterion",
    "ResNet", "resnet18", "resnet34", "resnet50", "resnet50_v1", "resnet101", "resnet152",
    "CifarResNet", "resnet20_cifar", "resnet56_cifar",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
    "wide_resnet50_2", "wide_resnet101_2",
    "EfficientNet", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "EfficientNetLite", "efficientnet_lite0",
    "MNASNet", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3",
    "MobileNetV1", "mobilenet_v1",
    "MobileNetV2", "mobilenet_v2",
    "MobileNetV3", "mobilenet_v3_large", "mobilenet_v3_small",
    "Faces", "ONet", "PNet", "Proposals", "RNet",
    "ShuffleNetV2", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "ConvNeXt", "convnext_small", "convnext_tiny",
    "DenseNet", "densenet121", "densenet161", "densenet169", "densenet201",
    "RegNet", "regnet_x_1_6gf", "regnet_x_400mf", "regnet_y_1_6gf", "regnet_y_400mf",
    "FCN", "FCNHead", "FCNOutputs", "FCNResNet", "fcn", "fcn_resnet50", "fcn_resnet101",
    "UNet", "unet",
]
