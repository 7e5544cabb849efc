"""What is kept of a conversion: under everything that it depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from columns.schema import Schema
from oci.digest import Digest
from packager.environments import Environment
from packager.environments.store import Kept
from packager.frameworks.outcome import Asked

ASKED = Asked(
    Digest.of(b"a model"),
    Environment(Path("environment"), Kept("classic", "3.11", {}, 0, 0.0, "a-key")),
    (Schema.parse({"x": "float32"}), None),
    [{"in.x": 1.0}],
    {"y": 1e-4},
)


def test_an_outcome_is_found_by_the_digest_of_a_file_and_by_that_of_a_folder_which_is_text() -> None:
    assert ASKED.key == replace(ASKED, artefact=str(ASKED.artefact)).key


def test_another_artefact_tolerance_row_or_environment_is_another_outcome() -> None:
    others = [
        replace(ASKED, artefact=Digest.of(b"another")),
        replace(ASKED, tolerance=1e-4),
        replace(ASKED, rows=None),
        replace(ASKED, fields=(None, None)),
        replace(ASKED, environment=replace(ASKED.environment, kept=Kept("classic", "3.11", {}, 0, 0.0, "b"))),
    ]
    assert len({each.key for each in (ASKED, *others)}) == 6
