"""Environments: pinned interpreters with a framework's libraries, made on demand and kept under the user's cache.

What runs in them is never imported here. `recipe` says what belongs into one, `interpreters` finds a Python that it
can have, `install` fills one from wheels, `store` makes, keeps, lists and prunes them.
"""

from packager.environments.recipe import CLASSIC, HUGGING_FACE, TENSORFLOW, TORCH, Recipe
from packager.environments.store import Environment, Kept, list_environments, prune_environments, ready

__all__ = [
    "CLASSIC",
    "HUGGING_FACE",
    "TENSORFLOW",
    "TORCH",
    "Environment",
    "Kept",
    "Recipe",
    "list_environments",
    "prune_environments",
    "ready",
]
