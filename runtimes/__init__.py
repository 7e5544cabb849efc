"""How a model runs: the `Runtime` protocol, one module an engine, pipelines, and their trial in a child."""

from runtimes.pipeline import LoadedPipeline, Outcome
from runtimes.protocol import Runtime

__all__ = ["LoadedPipeline", "Outcome", "Runtime"]
