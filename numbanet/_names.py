"""The public functions of the package and the modules that hold them: what PyTorch has at its top level."""

_OPS = {
    "activation": "celu prelu relu relu_ selu selu_ sigmoid tanh",
    "convolution": "conv1d conv2d conv3d conv_transpose1d conv_transpose2d",
    "diagonal": "diag diagonal tril triu",
    "dropout": "dropout",
    "elementwise": "add clamp clip div divide eq floor_divide fmod ge greater greater_equal gt isfinite isinf isnan le "
                   "less less_equal logical_and logical_not logical_or logical_xor lt masked_fill maximum minimum mul "
                   "multiply ne not_equal pow remainder rsub sub subtract true_divide where",
    "factories": "allclose arange bernoulli empty empty_like equal eye full full_like isclose linspace normal ones "
                 "ones_like rand rand_like randint randint_like randn randn_like randperm zeros zeros_like",
    "functions": "abs absolute ceil cos erf exp expm1 floor log log10 log1p log2 neg negative reciprocal round rsqrt "
                 "sign sin sqrt square tan trunc",
    "indexing": "argwhere gather index_add index_select masked_select nonzero scatter scatter_add take take_along_dim",
    "interchange": "from_dlpack",
    "linear": "addmm baddbmm bmm dot inner matmul mm mv outer",
    "rearrange": "cat channel_shuffle channels_last chunk clone concat concatenate contiguous_format flip hstack "
                 "pixel_shuffle pixel_unshuffle preserve_format repeat_interleave roll split stack tile unbind vstack",
    "reduction": "all amax amin any argmax argmin argsort count_nonzero cumsum logsumexp max mean median min norm prod "
                 "sort std std_mean sum topk var var_mean",
    "shape": "broadcast_tensors broadcast_to flatten meshgrid moveaxis movedim narrow permute reshape select "
             "squeeze swapaxes swapdims t transpose unflatten unsqueeze",
    "softmax": "log_softmax softmax",
}
_OTHERS = {
    "numbanet._tensor": "Tensor as_tensor device from_numpy get_default_device is_floating_point is_tensor numel set_default_device tensor",
    "numbanet.autograd": "enable_grad inference_mode is_grad_enabled no_grad set_grad_enabled",
    "numbanet.backends.precision": "get_float32_precision set_float32_precision",
    "numbanet.dtypes": "bool bfloat16 double e float float16 float32 float64 get_default_dtype half inf int int32 int64 long nan pi "
                       "promote result_type set_default_dtype uint8",
    "numbanet.errors": "AutogradError BackendError CheckpointError DataError DTypeError IndexRangeError MemoryLimitError "
                       "NumbanetError OnnxError ShapeError UnsupportedOperationError UsageError",
    "numbanet.graph": "autotune compile summarize trace",
    "numbanet.random": "Generator default_generator fork_rng get_rng_state initial_seed manual_seed seed seed_everything "
                       "set_rng_state",
    "numbanet.threading": "get_num_threads set_num_threads",
    "numbanet.weights": "load_weights save_weights",
    "numbanet.zoo": "create_model list_models",
}
MODULES = ("autograd", "backends", "cuda", "data", "detection", "dtypes", "errors", "functional", "geometry", "graph", "nn", "onnx", "ops", "optim",
           "random", "search", "train", "vision", "weights", "zoo")
WHERE = {name: module for module, names in ({f"numbanet.ops.{m}": n for m, n in _OPS.items()} | _OTHERS).items() for name in names.split()}
