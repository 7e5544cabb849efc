"""What a device is: architecture, accelerator, what runs where."""

from arch.catalog import Catalog
from arch.target import Platform, Target, every_target, host_target, plain_targets
from arch.traits import Traits, every_traits, traits_of

__all__ = [
    "Catalog",
    "Platform",
    "Target",
    "Traits",
    "every_target",
    "every_traits",
    "host_target",
    "plain_targets",
    "traits_of",
]
