"""Names of `torch.nn` that numbanet, which is for convolutional networks, does not have, and what to use instead."""

from __future__ import annotations

from numbanet.errors import UnsupportedOperationError

_REMEDIES = {
    "recurrent layers are not part of numbanet; convolutions over time (Conv1d) are":
        "RNN LSTM GRU RNNBase RNNCell RNNCellBase LSTMCell GRUCell",
    "attention is not part of numbanet; compose it of Linear, matmul and softmax":
        "Transformer TransformerEncoder TransformerDecoder TransformerEncoderLayer TransformerDecoderLayer "
        "MultiheadAttention",
    "embeddings are not part of numbanet; index a Parameter: weight[indices]":
        "Embedding EmbeddingBag",
    "use Linear on a product of the two inputs":
        "Bilinear",
    "fold one axis into the batch and use the two-dimensional layer":
        "ConvTranspose3d InstanceNorm3d ConstantPad3d ZeroPad3d ReflectionPad3d ReplicationPad3d CircularPad3d",
    "use LeakyReLU or PReLU":
        "RReLU",
    "use MaxPool2d or AvgPool2d, and ConvTranspose2d or Upsample for the way back":
        "MaxUnpool1d MaxUnpool2d MaxUnpool3d FractionalMaxPool2d FractionalMaxPool3d LPPool1d LPPool2d LPPool3d",
    "give the sizes; numbanet has no lazy layers":
        "LazyLinear LazyConv1d LazyConv2d LazyConv3d LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d "
        "LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyInstanceNorm1d LazyInstanceNorm2d LazyInstanceNorm3d",
    "use LayerNorm or GroupNorm":
        "RMSNorm",
    "use LocalResponseNorm":
        "CrossMapLRN2d",
    "compose it of tensor operations":
        "CosineSimilarity PairwiseDistance",
    "numbanet trains on one device":
        "SyncBatchNorm DataParallel",
    "use a convolution, or slices":
        "Unfold Fold",
    "compose the loss of tensor operations; present are CrossEntropyLoss, NLLLoss, BCELoss, BCEWithLogitsLoss, "
    "MSELoss, L1Loss, SmoothL1Loss, HuberLoss and KLDivLoss":
        "CTCLoss TripletMarginLoss CosineEmbeddingLoss PoissonNLLLoss GaussianNLLLoss HingeEmbeddingLoss "
        "MultiLabelSoftMarginLoss MultiLabelMarginLoss MultiMarginLoss MarginRankingLoss SoftMarginLoss "
        "TripletMarginWithDistanceLoss AdaptiveLogSoftmaxWithLoss LinearCrossEntropyLoss",
}
ABSENT = {name: remedy for remedy, names in _REMEDIES.items() for name in names.split()}


class AbsentNameError(UnsupportedOperationError, AttributeError):
    """A name that PyTorch has and numbanet does not; an AttributeError, so that `hasattr` and imports behave."""


def explain(name: str) -> AttributeError:
    """The error for an attribute that :mod:`numbanet.nn` lacks."""
    if name in ABSENT:
        return AbsentNameError(f"nn.{name}: {ABSENT[name]}")
    return AttributeError(f"module 'numbanet.nn' has no attribute {name!r}")
