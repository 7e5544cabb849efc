"""Runs inside a pinned environment, in a sandboxed child: turns the weights of an ONNX model into integers.

Only the standard library, numpy, onnx and onnxruntime may be imported here, and nothing of edgepack: the child has no
other room on its path.
"""
