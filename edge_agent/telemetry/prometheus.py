"""The lines of Prometheus's text format 0.0.4 ("Exposition formats" in its documentation)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

Labels = dict[str, str]
Samples = Iterable[tuple[Labels, float]]


def family(name: str, kind: str, words: str, samples: Samples) -> Iterator[str]:
    """One metric with all of its samples."""
    yield from _head(name, kind, words)
    for labels, value in samples:
        yield _sample(name, labels, value)


def histogram(
    name: str, words: str, bounds: Sequence[float], found: Iterable[tuple[Labels, list[int], float]]
) -> Iterator[str]:
    """Histograms of one name: labels, how many values fell between the bounds (one more than these), and their sum."""
    yield from _head(name, "histogram", words)
    for labels, counts, total in found:
        seen = 0
        for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
            seen += count
            yield _sample(f"{name}_bucket", {**labels, "le": bound}, seen)
        yield _sample(f"{name}_sum", labels, total)
        yield _sample(f"{name}_count", labels, seen)


def _head(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value}" if inner else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
