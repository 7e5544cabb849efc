"""Runs in an environment of its own, in a child: networks whose inputs and outputs are tensors, rows first."""
