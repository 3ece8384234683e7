"""The entries of PyTorch's operator database that concern numbanet; a test compares them with the database."""

NAMES = """
    abs add item arange normal.in_place clamp_max clamp_min mul sub addmm addmm.decomposed baddbmm dot bmm mv allclose broadcast_to
    broadcast_tensors ceil chunk clone contiguous clamp cos cumsum div.no_rounding_mode div.trunc_rounding div.floor_rounding
    true_divide equal exp expand expand_as diag diagonal eq fmod remainder floor flip floor_divide log1p ge gt le linspace
    linspace.tensor_overload log log10 log2 logical_not lt masked_fill masked_select matmul max.reduction_with_dim max.reduction_no_dim
    median var_mean var_mean.unbiased std_mean std_mean.unbiased meshgrid.variadic_tensors meshgrid.list_of_tensors
    min.reduction_with_dim min.reduction_no_dim max.binary maximum min.binary minimum logical_and logical_or logical_xor isclose softmax
    softmax.with_dtype nn.functional.softmin nn.functional.softmin.with_dtype nn.functional.cross_entropy nn.functional.normalize
    nn.functional.adaptive_avg_pool1d nn.functional.adaptive_avg_pool2d nn.functional.adaptive_avg_pool3d
    nn.functional.adaptive_max_pool1d nn.functional.adaptive_max_pool2d nn.functional.adaptive_max_pool3d nn.functional.avg_pool1d
    nn.functional.avg_pool3d nn.functional.binary_cross_entropy_with_logits nn.functional.relu nn.functional.conv_transpose1d
    nn.functional.conv_transpose2d nn.functional.conv1d nn.functional.conv2d nn.functional.conv3d nn.functional.group_norm
    nn.functional.instance_norm nn.functional.layer_norm nn.functional.local_response_norm constant_pad_nd nn.functional.pad.constant
    nn.functional.pad.reflect nn.functional.pad.replicate nn.functional.pad.replicate_negative nn.functional.pad.circular
    nn.functional.hardswish nn.functional.interpolate.nearest nn.functional.interpolate.linear nn.functional.interpolate.bilinear
    nn.functional.interpolate.area nn.functional.upsample_bilinear nn.functional.upsample_nearest nn.functional.leaky_relu
    nn.functional.avg_pool2d nn.functional.max_pool1d nn.functional.max_pool2d nn.functional.max_pool3d nn.functional.linear
    nn.functional.glu nn.functional.elu nn.functional.prelu nn.functional.celu nn.functional.selu nn.functional.silu
    nn.functional.hardsigmoid nn.functional.logsigmoid nn.functional.mish nn.functional.softsign nn.functional.tanhshrink
    nn.functional.threshold to topk nn.functional.batch_norm nn.functional.binary_cross_entropy nn.functional.softshrink
    nn.functional.hardshrink nn.functional.hardtanh nn.functional.gelu nn.functional.relu6 mm ne narrow neg outer permute pow roll round
    round.decimals_0 round.decimals_3 round.decimals_neg_3 sin sign split split.list_args split_with_sizes __radd__ __rdiv__ __rmul__
    __rmod__ __rpow__ __rsub__ rsub select tan tanh trunc expm1 reciprocal rsqrt sqrt square isfinite isinf isnan ravel reshape
    reshape_as view view_as flatten unflatten gather index_select index_add __getitem__ index_put sort take scatter bfloat16 bool byte
    double float half int long empty_like zeros_like ones_like randn randn_like rand_like randint randint_like full_like new_zeros
    new_ones ones zeros full new_empty empty eye new_full normal normal.number_mean bernoulli scatter_add stack hstack cat unbind vstack
    movedim repeat squeeze squeeze.multiple take_along_dim tile unsqueeze zero_ logsumexp transpose T mT tril triu inner sigmoid erf
    nn.functional.smooth_l1_loss nn.functional.l1_loss log_softmax log_softmax.with_dtype where nonzero norm norm.fro norm.inf t
    nn.functional.dropout nn.functional.dropout2d nn.functional.dropout3d nn.functional.alpha_dropout
    nn.functional.feature_alpha_dropout.with_train nn.functional.feature_alpha_dropout.without_train nn.functional.softplus
    nn.functional.mse_loss argwhere all any amax amin argmax argmin count_nonzero mean std std.unbiased var var.unbiased prod sum
    nn.functional.nll_loss nn.functional.huber_loss argsort repeat_interleave nn.functional.pixel_shuffle nn.functional.pixel_unshuffle
    nn.functional.channel_shuffle nn.functional.kl_div
""".split()
