"""Names of PyTorch that numbanet, which is for convolutional networks, does not have, and what to use instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from numbanet.errors import UnsupportedOperationError

_TOP = {
    "nothing is pickled: use save_weights(path, model.state_dict()) and load_weights(path)":
        "save load",
    "compose it of matmul, permute and sum":
        "einsum tensordot kron cdist",
    "numbanet.compile makes a plan of a model, numbanet.trace records it as a graph, numbanet.onnx.save exports it":
        "jit fx export compiler",
    "several processes train through MPI: mpiexec -n 2 numbanet train, or Trainer(replicas=numbanet.train.distributed.Replicas())":
        "distributed",
    "loaders work in threads: DataLoader(num_workers=)":
        "multiprocessing",
    "numbanet computes in float32, or in float64":
        "complex64 complex128 quantization ao",
    "not part of numbanet; use NumPy on x.numpy()":
        "fft linalg sparse special histc bincount unique quantile multinomial",
    "published weights are read from files: create_model(name, weights=path)":
        "hub",
    "numbanet.data has what torch.utils.data has":
        "utils",
    "numbanet.autograd has Function, grad and gradient_check":
        "func vmap",
}
_NN = {
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
    "each process trains with one device: mpiexec -n 2 numbanet train, or Trainer(replicas=Replicas())":
        "DataParallel",
    "use a convolution, or slices":
        "Unfold Fold",
    "compose the loss of tensor operations; present are CrossEntropyLoss, NLLLoss, BCELoss, BCEWithLogitsLoss, "
    "MSELoss, L1Loss, SmoothL1Loss, HuberLoss and KLDivLoss":
        "CTCLoss TripletMarginLoss CosineEmbeddingLoss PoissonNLLLoss GaussianNLLLoss HingeEmbeddingLoss "
        "MultiLabelSoftMarginLoss MultiLabelMarginLoss MultiMarginLoss MarginRankingLoss SoftMarginLoss "
        "TripletMarginWithDistanceLoss AdaptiveLogSoftmaxWithLoss LinearCrossEntropyLoss",
}


def _by_name(remedies: dict[str, str]) -> dict[str, str]:
    return {name: remedy for remedy, names in remedies.items() for name in names.split()}


ABSENT = {"numbanet": _by_name(_TOP), "nn": _by_name(_NN)}


class AbsentNameError(UnsupportedOperationError, AttributeError):
    """A name that PyTorch has and numbanet does not; an AttributeError, so that `hasattr` and imports behave."""


def explain(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error for a name that a module lacks: what to use instead, or the nearest of the `known` ones."""
    remedy = ABSENT.get(module, {}).get(name)
    if remedy is not None:
        return AbsentNameError(f"{module}.{name}: {remedy}")
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {module}.{close[0]}?" if close else ""
    path = module if module == "numbanet" else f"numbanet.{module}"
    return AttributeError(f"module {path!r} has no attribute {name!r}{hint}")
