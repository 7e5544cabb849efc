"""`Options`: what ONNX Runtime's providers are told, as data: tables of a target file, which an image hands to its
agent in one environment variable.

`{threads}` in a value stands for the number of threads that a model computes with, `{cache}` for the folder in which
the agent keeps what was compiled of it. The agent alone has that folder: what a child has compiled, in which a model
runs for the first time, is not for its parent to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from arch.traits import Settings, Traits, every_traits
from edgepack.errors import BadInput

VARIABLE = "EDGEPACK_PROVIDER_OPTIONS"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Provider → option → value; those of `cache` are given only where there is a folder."""

    options: dict[str, dict[str, str]] = {}
    cache: dict[str, dict[str, str]] = {}

    @classmethod
    def of_target(cls, traits: Traits) -> Options:
        """Those of a target's own providers."""
        return cls(_of(traits.options, traits), _of(traits.cache, traits))

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Options:
        """Those that an image was built with; without an image, for each provider those of a target of ours that has
        it.

        Raises BadInput for a variable that does not read.
        """
        text = environ.get(VARIABLE, "").strip()
        if not text:
            return cls.of_ours()
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            example = '{"options":{"OpenVINOExecutionProvider":{"device_type":"GPU"}}}'
            raise BadInput(f"{VARIABLE} does not read: {error}; expected tables as in {example}") from error

    @classmethod
    def of_ours(cls) -> Options:
        """For each provider, those of the first target of ours that has it."""
        found = cls()
        for each in map(cls.of_target, every_traits()):
            found = cls({**each.options, **found.options}, {**each.cache, **found.cache})
        return found

    def said(self) -> str:
        """As the variable has them."""
        return msgspec.json.encode(self, order="sorted").decode()

    def to(self, provider: str, threads: int, cache: Path | None) -> dict[str, str]:
        """What one provider is told."""
        given = {**self.options.get(provider, {}), **(self.cache.get(provider, {}) if cache else {})}
        return {
            name: value.replace("{threads}", str(threads)).replace("{cache}", str(cache))
            for name, value in given.items()
        }


def _of(settings: Settings, traits: Traits) -> dict[str, dict[str, str]]:
    return {name: dict(settings[name]) for name in traits.providers if name in settings}
