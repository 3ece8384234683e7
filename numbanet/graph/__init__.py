"""Recorded programs of primitives: tracing, replay, cost, summary."""

from numbanet.graph.compile import CompiledModel, CompiledStep, compile
from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.plan import Plan
from numbanet.graph.summary import summarize
from numbanet.graph.trace import trace, trace_step
from numbanet.graph.tuning import autotune

__all__ = ["CompiledModel", "CompiledStep", "Graph", "Node", "Plan", "Value", "autotune", "compile", "summarize", "trace",
           "trace_step"]
