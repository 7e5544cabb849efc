"""How a registry, and a model in it, are written, and whose credentials go to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.commands._registry_logins import registry_credentials, registry_url
from edgepack.commands._source import is_address
from edgepack.errors import BadInput
from oci.credentials import Basic, Bearer
from packager.registries.address import Address, Place, parse_address, place_of


def test_addresses_are_read() -> None:
    assert parse_address("models:/a b/3") == Address("a b", version="3")
    assert parse_address("models:/wine@champion") == Address("wine", alias="champion")
    assert parse_address("dbfs:/databricks/x/models/m").place == Place("dbfs", "databricks/x/models/m")
    found = parse_address("https://h/mlflow/api/2.0/mlflow-artifacts/artifacts/0/a%20b/artifacts")
    assert found == Address(place=Place("mlflow-artifacts", "0/a b/artifacts"), registry="https://h/mlflow")
    assert found.place is not None and found.place.name == "a b"
    assert parse_address("Models:/a/1") == Address("a", version="1")
    assert parse_address("DBFS:/a/m").place == parse_address("dbfs:/a/m").place


def test_a_source_is_an_address_or_a_path() -> None:
    for text in ("models:/a/1", "Models:/a/1", "dbfs:/x", "DBFS:/x", "mlflow-artifacts:/0/m", "HTTPS://h/m", "runs:/1"):
        assert is_address(text)
    assert not any(map(is_address, ("model.onnx", "./models:", "C:/x", "a/models:/b/1", "s3://b/k")))


@pytest.mark.parametrize(
    "text",
    [
        *("models:/", "models:/a", "models://a/1", "models:/a/1/x", "models:/@x", "models:/a@", "models:/a@b/1"),
        *("dbfs:/", "dbfs:/a/../b", "mlflow-artifacts://host/a", "runs:/1/model", "http://h/model", "models:/a/\n"),
        *("https://h/api/2.0/dbfs/read?path=", "http://[", "Runs:/1/model"),
    ],
)
def test_an_address_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"expected|start the server") as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60).map(lambda text: f"mlflow-artifacts:/{text}"))
def test_no_path_in_a_store_climbs(text: str) -> None:
    try:
        place = parse_address(text).place
    except BadInput:
        return
    assert place is not None and not {"", ".", ".."} & set(place.path.split("/"))


def test_a_store_that_the_server_does_not_serve_is_refused_with_the_way_out() -> None:
    for uri in ("s3://bucket/model", "gs://b/m", "file:///tmp/m", "/tmp/m"):
        with pytest.raises(BadInput, match="start the server with --serve-artifacts"):
            place_of(uri)


def test_credentials_are_of_the_environment_for_its_own_registry_alone() -> None:
    environ = {"MLFLOW_TRACKING_URI": "https://a.example/mlflow/", "MLFLOW_TRACKING_TOKEN": "t"}
    assert registry_url(None, environ) == "https://a.example/mlflow"
    assert registry_credentials("https://a.example/mlflow", environ) == Bearer("t")
    assert registry_credentials("https://b.example", environ) is None
    user = {"MLFLOW_TRACKING_URI": "https://a.example", "MLFLOW_TRACKING_USERNAME": "u"}
    assert registry_credentials("https://a.example", user) == Basic("u", "")
    bricks = {"MLFLOW_TRACKING_URI": "databricks", "DATABRICKS_HOST": "ws.example", "DATABRICKS_TOKEN": "d"}
    assert registry_url(None, bricks) == "https://ws.example"
    for host in ("ws.example", "https://ws.example/"):
        assert registry_credentials("https://ws.example", {**bricks, "DATABRICKS_HOST": host}) == Bearer("d")
    assert registry_credentials("https://other.example", bricks) is None


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://a", "http://", "http://a:b", "http://[", "http://a/?q", "sqlite:///a.db"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match=r"is not a URL|no registry is named"):
        registry_url(None, {"MLFLOW_TRACKING_URI": url})
