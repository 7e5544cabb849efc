"""A program's own models: where they are listed, which versions they may be asked for by, what the program is told of
that, and what an answer names.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.doors.versions import check_version, model_asked, named_as, versions_of
from edge_agent.pipelines.serving import NotServed
from tests.edge_agent.served import VERSION, Served


def program(**own_models: tuple[str, ...]) -> Any:
    """A predictor `belt`, as far as its versions go."""
    spec = SimpleNamespace(spec=SimpleNamespace(number=None))
    return SimpleNamespace(name="belt", version="11a8bf3c", loaded=spec, own_models=own_models)


def test_a_model_with_the_name_of_its_program_is_asked_for_by_its_numbers() -> None:
    """The only model of a Cortex API has that name; the program's UUID stands for all of it."""
    active = program(belt=("9", "10"), scale=("3",))
    assert versions_of(active) == ["11a8bf3c"]
    assert versions_of(active, "belt") == ["11a8bf3c", "9", "10"]
    assert versions_of(active, "scale") == ["3"]
    for name, version in (("belt", "9"), ("belt", "11a8bf3c"), ("belt", "latest"), ("scale", "3"), ("scale", None)):
        check_version(active, version, name)
    for name, version in (("belt", "3"), ("scale", "11a8bf3c"), ("scale", "9")):
        with pytest.raises(NotServed, match=f"^version '{version}' of pipeline '{name}' is not served here"):
            check_version(active, version, name)


def test_a_program_is_told_the_model_and_version_that_a_path_names() -> None:
    active = program(belt=("9", "10"), scale=("3",))
    assert model_asked(active, "scale", "3") == {"model": "scale", "version": "3"}
    assert model_asked(active, "belt", "9") == {"model": "belt", "version": "9"}
    assert model_asked(active, "belt", "latest") == {"model": "belt", "version": "latest"}
    assert model_asked(active, "belt", "11a8bf3c") == {"model": "belt", "version": None}, "the program's, not a model's"
    assert model_asked(program(scale=("3",)), "belt", "11a8bf3c") == {}


def test_an_answer_names_the_model_and_version_that_were_asked_for_or_the_latest() -> None:
    active = program(belt=("9", "10"), scale=("3", "4"))
    for (name, version), expected in {
        ("scale", "3"): ("scale", "3"),
        ("scale", None): ("scale", "4"),
        ("scale", "latest"): ("scale", "4"),
        ("belt", "9"): ("belt", "9"),
        ("belt", "latest"): ("belt", "10"),
        ("belt", None): ("belt", "11a8bf3c"),
        ("belt", "11a8bf3c"): ("belt", "11a8bf3c"),
    }.items():
        assert named_as(active, name, version) == expected, (name, version)
    assert named_as(program(), "belt", None) == ("belt", "11a8bf3c")


@pytest.fixture
def api(served: Served) -> Served:
    """Two predictors with models of their own, as far as names go: what answers is a sum."""
    for name, own_models in {
        "api": {"api": ("9",), "scale": ("3", "10"), "both": ("1",), "line": ("7",)},
        "other": {"both": ("1",), "sieve": ("5",)},
        "line": {},
    }.items():
        vars(served.add(name))["own_models"] = own_models
    return served


def test_the_models_of_programs_are_listed_beside_them_where_requests_reach_them(api: Served) -> None:
    names = ["api", "line", "other", "scale", "sieve"]  # not 'both', which two have; 'line' is a pipeline
    own = [("api", "9"), ("scale", "10"), ("scale", "3"), ("sieve", "5")]
    for path in ("/v2/models", "/v1/models"):
        assert api.get(path).json() == {"models": names}
    index = api.post("/v2/repository/index", data=b"{}").json()
    found = sorted((each["name"], each["version"]) for each in index if each["state"] == "READY")
    assert found == sorted([*own, *((name, VERSION) for name in ("api", "line", "other"))])
    models = api.get("/models").json()["models"]
    assert sorted((each["name"], each["version"]) for each in models if each["version"].isdigit()) == own
    paths = api.get("/openapi.json").json()["paths"]
    name, version = paths["/v2/models/{pipeline}/versions/{version}/infer"]["post"]["parameters"]
    assert sorted(name["schema"]["enum"]) == names and {"9", "3", "10", "5"} < set(version["schema"]["enum"])
    for each, number in own:
        assert api.get(f"/v2/models/{each}/versions/{number}/ready").json() == {"name": each, "ready": True}


def test_the_models_of_a_program_that_rests_are_listed_and_not_ready(api: Served) -> None:
    api.serving.rest("api", "")
    assert api.get("/v2/models").json()["models"] == ["api", "line", "other", "scale", "sieve"]
    index = {each["name"]: each for each in api.post("/v2/repository/index", data=b"").json()}
    for name in ("api", "scale"):
        assert index[name] == {"name": name, "state": "UNAVAILABLE", "reason": "rests to save memory"}
    ready = api.post("/v2/repository/index", data=b'{"ready": true}').json()
    assert sorted({each["name"] for each in ready}) == ["line", "other", "sieve"]


def test_an_answer_of_the_protocol_carries_the_models_own_name(api: Served) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}]}
    for path, version in {"scale/versions/3": "3", "scale": "10", "scale/versions/latest": "10", "sieve": "5"}.items():
        for _ in range(3):
            said = api.post(f"/v2/models/{path}/infer", json=body).json()
            assert (said["model_name"], said["model_version"]) == (path.partition("/")[0], version)
    assert api.get("/v2/models/scale/config").json()["name"] == "scale"
    said = api.post("/v2/models/api/infer", json=body).json()
    assert (said["model_name"], said["model_version"]) == ("api", VERSION)
