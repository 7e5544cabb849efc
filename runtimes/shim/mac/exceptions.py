"""Errors that users' code raises or catches."""

from __future__ import annotations


class ModelNotAssignedError(Exception):
    """An inference was asked before it had a model."""


class InferenceDataValidationError(Exception):
    """The data given to an inference is not what it takes."""


class InferenceTypeError(Exception):
    """Something of another type than an inference was given."""
