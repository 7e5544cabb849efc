"""What a device is: architecture, accelerator, what runs where."""

from arch.target import Platform, Target, every_target, host_target
from arch.traits import Traits, every_traits, traits_of

__all__ = ["Platform", "Target", "Traits", "every_target", "every_traits", "host_target", "traits_of"]
