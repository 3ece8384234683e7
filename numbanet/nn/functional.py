"""Operations as functions, with the names and signatures of `torch.nn.functional`. Also `numbanet.functional`."""

from numbanet.ops.activation import relu
from numbanet.ops.convolution import conv2d
from numbanet.ops.linear import linear
from numbanet.ops.loss import cross_entropy
from numbanet.ops.pooling import max_pool2d

__all__ = ["conv2d", "cross_entropy", "linear", "max_pool2d", "relu"]
