"""Operations as functions, with the names and signatures of `torch.nn.functional`. Also `numbanet.functional`."""

from numbanet.ops.activation import relu
from numbanet.ops.convolution import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d
from numbanet.ops.dropout import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from numbanet.ops.linear import linear
from numbanet.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from numbanet.ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from numbanet.ops.rearrange import channel_shuffle, pixel_shuffle, pixel_unshuffle

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "alpha_dropout", "avg_pool1d", "avg_pool2d", "avg_pool3d", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "channel_shuffle", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "cross_entropy", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "feature_alpha_dropout", "huber_loss", "kl_div", "l1_loss", "linear", "max_pool1d",
    "max_pool2d", "max_pool3d", "mse_loss", "nll_loss", "pixel_shuffle", "pixel_unshuffle", "relu", "smooth_l1_loss",
]
