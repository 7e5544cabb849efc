"""What is kept of a conversion: under everything that it depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from columns.schema import Schema
from oci.digest import Digest
from packager.checks import Checklist
from packager.conversion import ESTIMATOR, NETWORK, Converted
from packager.environments import Environment
from packager.environments.store import Kept
from packager.frameworks import proving
from packager.frameworks.outcome import Asked, Proven, kept_outcome
from packager.gate import choose
from packager.project import StepSource
from tests.packager.test_gate import attempts

ASKED = Asked(
    Digest.of(b"a model"),
    "xgboost",
    ESTIMATOR,
    Environment(Path("environment"), Kept("classic", "3.11", {}, 0, 0.0, "a-key")),
    (Schema.parse({"x": "float32"}), None),
    [{"in.x": 1.0}],
    {"y": 1e-4},
)


def test_an_outcome_is_found_by_the_digest_of_a_file_and_by_that_of_a_folder_which_is_text() -> None:
    assert ASKED.key == replace(ASKED, artefact=str(ASKED.artefact)).key


def test_another_artefact_form_program_tolerance_row_or_environment_is_another_outcome() -> None:
    others = [
        replace(ASKED, artefact=Digest.of(b"another")),
        replace(ASKED, form="xgboost-estimator"),
        replace(ASKED, program=NETWORK),
        replace(ASKED, tolerance=1e-4),
        replace(ASKED, rows=None),
        replace(ASKED, fields=(None, None)),
        replace(ASKED, environment=replace(ASKED.environment, kept=Kept("classic", "3.11", {}, 0, 0.0, "b"))),
    ]
    assert len({each.key for each in (ASKED, *others)}) == 8


def proof(folder: Path, timeout_s: float) -> Callable[[Path], Proven]:
    """What a conversion that took none gives, compared within a deadline."""

    def prove(work: Path) -> Proven:
        made = tuple(attempts(folder))
        return Proven(Converted("a model", {}, {}, {}, "fields", None, made), choose(made, 1e-5, timeout_s))

    return prove


def test_what_did_not_answer_in_time_is_asked_again_by_the_next_build(tmp_path: Path) -> None:
    """A machine that was busy once must not pin a model to a worker for ever."""
    found = [kept_outcome("m", ASKED, tmp_path / "cache", proof(tmp_path, each))[1] for each in (0.001, 60, 0.001)]
    assert [(each.strategy, each.lasts) for each in found] == [("python", False), ("float32", True), ("float32", True)]


def test_a_build_says_that_its_verdict_is_for_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = replace(ESTIMATOR, trial_s=0.001)
    monkeypatch.setattr(proving, "checked_environment", lambda *_: ASKED.environment)
    monkeypatch.setattr(proving, "convert", lambda *_, **how: proof(tmp_path, how["program"].trial_s)(tmp_path).found)
    told: list[str] = []
    candidate = proving.Candidate(Path("m.pkl"), "xgboost", ASKED.artefact, None, program)
    source = StepSource("m", Path("m.pkl"))
    checklist = Checklist(notice=told.append)
    verdict = proving.prove(source, candidate, ASKED.fields, checklist, tmp_path / "cache")
    assert not verdict.outcome.lasts and [each.passed for each in checklist.checks] == [True]
    assert told == [
        "model 'm.pkl' did not answer its trial in time, so runtime python is for this build alone: build again when "
        "this machine is less busy"
    ]
