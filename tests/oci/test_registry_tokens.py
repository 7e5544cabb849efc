"""A real registry that takes tokens only, and the server that gives them: whose password goes where, and what a token
is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgepack.errors import BadInput
from oci.credentials import Basic, Bearer
from oci.docker_config import find_credentials
from oci.validate import examine
from tests.oci.conftest import Place, docker_registry
from tests.oci.make_images import LARGE, ONE, artifact
from tests.oci.test_credentials import answer, config, helper
from tests.oci.token_server import TokenServer

SECRET = "correct horse"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with TokenServer(tmp_path_factory.mktemp("tokens"), {"publisher": SECRET}) as running:
        yield running


@pytest.fixture(scope="module")
def place(tokens: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with docker_registry(tmp_path_factory.mktemp("registry"), settings=tokens.config) as running:
        yield Place(running.host, Basic("publisher", SECRET), running.folder)


def test_a_push_and_a_pull_get_a_token_for_what_they_do(place, tokens, tmp_path):
    with place.client() as registry:
        registry.push_index("plant/a", "v1", LARGE)
        registry.push_image("plant/a", artifact(b"sbom", subject=LARGE.images[0]))
        assert registry.pull_index("plant/a", "v1", tmp_path).entry.data == LARGE.entry.data
        assert examine(registry.source("plant/a", "v1")).referrers == 1
    # a registry names what is to be allowed in any order
    assert {",".join(sorted(each.split(":")[2].split(","))) for each in tokens.asked} == {"pull", "pull,push"}
    assert {each.split(":")[1] for each in tokens.asked} == {"plant/a"}


def test_a_mount_asks_for_both_repositories(place, tokens):
    with place.client() as registry:
        registry.push_index("plant/b", "v1", ONE)
        tokens.asked.clear()
        registry.push_index("plant/c", "v1", ONE, mount_from="plant/b")
    assert "repository:plant/b:pull" in tokens.asked
    held = {path.name for path in place.folder.glob("docker/registry/v2/repositories/plant/c/_layers/sha256/*")}
    assert held == {blob.descriptor.digest.removeprefix("sha256:") for blob in ONE.images[0].blobs()}
    assert list(place.folder.glob("docker/registry/v2/repositories/plant/c/_uploads/*")) == [], "no byte was sent"


def test_a_token_that_is_not_good_any_more_is_fetched_again(tokens, tmp_path):
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry", settings=tokens.config) as running:
        known, tokens.lives_s = tokens.lives_s, -61  # docker-registry allows a minute
        try:
            with Place(running.host, Basic("publisher", SECRET)).client() as registry:
                with pytest.raises(BadInput, match="credentials"):
                    registry.push_index("a", "v1", ONE)
                tokens.lives_s = known
                assert registry.push_index("a", "v1", ONE) == ONE.entry.descriptor.digest
        finally:
            tokens.lives_s = known


def test_anybody_may_pull_and_not_push(place, tmp_path):
    with place.client() as registry:
        registry.push_index("plant/open", "v1", ONE)
    with Place(place.host).client() as nobody:
        assert nobody.pull_index("plant/open", "v1", tmp_path).entry.data == ONE.entry.data
        with pytest.raises(BadInput, match=f"docker login {place.host}"):
            nobody.push_image("plant/open", artifact(b"mine"))


@pytest.mark.parametrize("auth", [Basic("publisher", "wrong"), Bearer(SECRET)], ids=["password", "no token of theirs"])
def test_wrong_credentials_are_one_line_without_them(place, auth):
    with Place(place.host, auth).client() as registry, pytest.raises(BadInput, match="credentials") as caught:
        registry.pull_manifest("plant/a", "v1")
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_credential_helper_knows_opens_it(place, tmp_path):
    helper(tmp_path, "plant", answer("publisher", SECRET))
    environ = config(tmp_path, credHelpers={place.host: "plant"})
    with Place(place.host, find_credentials(place.host, environ)).client() as registry:
        assert registry.push_index("by/helper", "v1", ONE) == ONE.entry.descriptor.digest
