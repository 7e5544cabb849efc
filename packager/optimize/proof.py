"""Whether a quantized model may stand for its original: one number a field, held against the tolerance that was given.

All rows at once and one by one: what is quantized while it runs depends on the rows that are asked together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bundle.losses import Loss, losses, told
from bundle.pipeline import MOST_LOSS
from columns.columns import Columns
from edgepack.errors import BadInput
from packager.parity import Answers

# A device may be so many times as far from the golden rows as was accepted here: its kernels err by themselves, as much
# as those of this machine and elsewhere (docs/decisions/0015).
DEVICE = 2


@dataclass(frozen=True)
class Losses:
    """The loss of each field over as many rows, asked all at once and one by one; whether the rows were made here."""

    rows: int
    together: Mapping[str, Loss]
    alone: Mapping[str, Loss]
    are_made: bool = False

    @classmethod
    def of(cls, expected: Columns, answers: Answers, *, are_made: bool = False) -> Losses:
        """Measure the answers of a quantized model against what is expected."""
        return cls(expected.rows, losses(expected, answers.together), losses(expected, answers.alone), are_made)

    @property
    def worse(self) -> dict[str, Loss]:
        """The loss of each field, the worse of both."""
        return {name: max(loss, self.alone[name], key=_badness) for name, loss in self.together.items()}

    def check(self, tolerance: float, what: str) -> str:
        """The largest loss in words. Raises BadInput with the figures where a field is beyond the tolerance."""
        name, worst = max(self.worse.items(), key=lambda each: (not each[1].is_within(tolerance), _badness(each[1])))
        said = f"field '{name}' {told(worst)}"
        if worst.is_within(tolerance):
            return f"{said} (tolerance {tolerance:g})"
        raise BadInput(
            f"{what} answers differently: {said}, {worst.max_abs:.3g} absolute, of {self.rows} golden rows; tolerance "
            f"{tolerance:g}: {self._way_out(tolerance)}"
        )

    def _way_out(self, tolerance: float) -> str:
        if self.are_made:
            return "these rows were made: give [golden] rows of real data, raise tolerance or remove optimize"
        if all(loss.is_within(tolerance) for loss in self.alone.values()):
            return (
                'one by one it is within that, as all rows of a request share a scale: write batch = "single" or '
                'quantize = "static", raise tolerance or remove optimize'
            )
        return "raise tolerance or remove optimize"


def loss_on_devices(tolerances: Iterable[float]) -> float:
    """What travels as the bundle's `loss`."""
    return min(MOST_LOSS, DEVICE * max(tolerances))


def _badness(loss: Loss) -> tuple[int, float, int, int]:
    share = loss.label_flips / loss.values if loss.values else 0.0
    return loss.not_finite, max(loss.of_range, share), loss.label_flips, loss.argmax_flips
