"""Recorded programs of primitives: tracing, replay, cost, summary."""

from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.summary import summarize
from numbanet.graph.trace import trace, trace_step

__all__ = ["Graph", "Node", "Value", "summarize", "trace", "trace_step"]
