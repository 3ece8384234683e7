"""Rewritings of a graph. Each pass is one file and one function, changes the graph in place, and names no backend.

`FOR_INFERENCE` and `FOR_TRAINING` are the orders in which plans run them. A rewritten graph is still a program of primitives:
``graph.run`` executes it on any backend, and gives the same numbers up to float32 rounding. Two more run where they are asked for:
`recompute` (``memory_limit=``) and `round_linear_weights` (``weights="bfloat16"``).
"""

from numbanet.graph.passes.activate_before_views import activate_before_views
from numbanet.graph.passes.add_gradients import add_gradients
from numbanet.graph.passes.chain_convolutions import chain_convolutions
from numbanet.graph.passes.chain_elementwise import chain_elementwise
from numbanet.graph.passes.drop_unused import drop_unused
from numbanet.graph.passes.fold_batch_norm import fold_batch_norm
from numbanet.graph.passes.fold_scales import fold_scales
from numbanet.graph.passes.fuse_batch_norm import fuse_batch_norm
from numbanet.graph.passes.fuse_epilogues import fuse_epilogues
from numbanet.graph.passes.fuse_linear_gradients import fuse_linear_gradients
from numbanet.graph.passes.interleave_channels import interleave_channels
from numbanet.graph.passes.join_small_calls import join_small_calls
from numbanet.graph.passes.limit_before_pooling import limit_before_pooling
from numbanet.graph.passes.nest_concatenations import nest_concatenations
from numbanet.graph.passes.pool_convolutions import pool_convolutions
from numbanet.graph.passes.preactivate_convolutions import preactivate_convolutions
from numbanet.graph.passes.recompute import recompute
from numbanet.graph.passes.round_linear_weights import round_linear_weights
from numbanet.graph.passes.take_statistics import take_statistics

FOR_INFERENCE = (drop_unused, interleave_channels, fold_batch_norm, fold_scales, activate_before_views, fuse_epilogues, chain_convolutions,
                 pool_convolutions, preactivate_convolutions, nest_concatenations, drop_unused, chain_elementwise)
FOR_TRAINING = (drop_unused, interleave_channels, fuse_batch_norm, fuse_epilogues, limit_before_pooling, pool_convolutions,
                fuse_linear_gradients, add_gradients, take_statistics, preactivate_convolutions, chain_elementwise, join_small_calls)

__all__ = ["FOR_INFERENCE", "FOR_TRAINING", "activate_before_views", "add_gradients", "chain_convolutions", "chain_elementwise",
           "drop_unused", "fold_batch_norm", "fold_scales", "fuse_batch_norm", "fuse_epilogues", "fuse_linear_gradients",
           "interleave_channels", "join_small_calls", "limit_before_pooling", "nest_concatenations", "pool_convolutions",
           "preactivate_convolutions", "recompute", "round_linear_weights", "take_statistics"]
