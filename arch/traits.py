"""What an image for a target is made of and what it can run: one row a target; a new accelerator adds a row here."""

from __future__ import annotations

from dataclasses import dataclass

from arch.target import Target, every_target


@dataclass(frozen=True)
class Traits:
    """The facts of one target.

    `python` is the interpreter's minor version, `wheel_platform` what the resolver is asked for, `glibc` the base's
    version. `providers` are ONNX Runtime's execution providers, the first choice first. `status` says how far the
    target was tried.
    """

    target: Target
    python: str
    debian_arch: str
    debian_release: str
    glibc: str
    wheel_platform: str
    machine: str
    providers: tuple[str, ...]
    status: str

    @property
    def base(self) -> str:
        """What the image stands on unless `--base` names something else."""
        return f"debian {self.debian_release}"


_CPU = ("CPUExecutionProvider",)
_BOOKWORM = ("bookworm", "2.36")
_ROWS = (
    Traits(Target("x86"), "3.11", "amd64", *_BOOKWORM, "x86_64-manylinux_2_36", "x86_64", _CPU, "tested"),
    Traits(Target("arm"), "3.11", "arm64", *_BOOKWORM, "aarch64-manylinux_2_36", "aarch64", _CPU, "tested"),
)
_TRAITS = {traits.target: traits for traits in _ROWS}


def traits_of(target: Target) -> Traits:
    """The row of a target; every target that `Target.parse` accepts has one."""
    return _TRAITS[target]


def every_traits() -> tuple[Traits, ...]:
    """All rows, in the order in which targets are listed to users."""
    return tuple(traits_of(target) for target in every_target())
