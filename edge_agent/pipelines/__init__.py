"""Pipelines that answer: which do, how one is replaced, what becomes of a request's rows."""
