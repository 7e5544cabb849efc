"""The credentials that `docker login` keeps, with helper programs that answer, fail, hang and babble."""

from __future__ import annotations

import base64
import json
import traceback
from pathlib import Path

import pytest

from edgepack.errors import BadInput
from oci.credentials import Basic, IdentityToken
from oci.docker_config import DockerConfig, find_credentials
from oci.registry import Registry
from tests.fakes.registry import FakeRegistry
from tests.oci.make_images import ONE

SECRET = "s3cret-of-the-user"


def config(folder: Path, **said: object) -> dict[str, str]:
    """Write a config.json; the environment that names it."""
    (folder / "config.json").write_text(json.dumps(said))
    return {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}:/usr/bin:/bin"}


def helper(folder: Path, name: str, script: str) -> None:
    """Put a credential helper on the path of `config`. It gets the server on standard input."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f'#!/bin/sh\nread server\n[ "$1" = get ] || exit 9\n{script}\n')
    program.chmod(0o755)


def answer(user: str, secret: str = SECRET) -> str:
    return f"printf '%s' '{json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret})}'"


def auth(user: str = "me", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("key", ["our.registry:5000", "https://our.registry:5000", "https://our.registry:5000/v2/"])
def test_what_is_written_for_a_host_is_found_however_its_key_was_written(tmp_path, key):
    environ = config(tmp_path, auths={key: auth(), "other.registry": auth("you")})
    assert find_credentials("our.registry:5000", environ) == Basic("me", SECRET)
    assert find_credentials("our.registry", environ) is None


def test_a_password_with_colons_stays_whole_and_an_identity_token_is_one(tmp_path):
    environ = config(tmp_path, auths={"a.b": auth(password="x:y:z"), "c.d": {**auth(), "identitytoken": "long"}})
    assert find_credentials("a.b", environ) == Basic("me", "x:y:z")
    assert find_credentials("c.d", environ) == IdentityToken("long")


def test_the_home_folder_is_used_without_a_variable_and_nothing_there_means_none(tmp_path):
    (tmp_path / ".docker").mkdir()
    config(tmp_path / ".docker", auths={"a.b": auth()})
    assert find_credentials("a.b", {"HOME": str(tmp_path)}) == Basic("me", SECRET)
    assert find_credentials("a.b", {"HOME": str(tmp_path / "nobody")}) is None
    assert find_credentials("a.b", {}) is None


def test_docker_hub_is_known_by_the_key_that_docker_login_writes(tmp_path):
    environ = config(tmp_path, auths={"https://index.docker.io/v1/": auth()})
    assert find_credentials("docker.io", environ) == Basic("me", SECRET)


def test_a_helper_of_a_host_wins_over_the_store_and_gets_the_host(tmp_path):
    helper(tmp_path, "own", answer("own"))
    helper(tmp_path, "all", f'printf "%s" "$server" > {tmp_path}/asked; {answer("all")}')
    environ = config(tmp_path, credHelpers={"a.b": "own"}, credsStore="all", auths={"https://c.d/v1/": {}})
    assert find_credentials("a.b", environ) == Basic("own", SECRET)
    assert find_credentials("c.d", environ) == Basic("all", SECRET)
    assert (tmp_path / "asked").read_text() == "https://c.d/v1/", "a store is asked by the key that it was filled with"


def test_a_helper_that_gives_a_token_instead_of_a_user_is_understood(tmp_path):
    helper(tmp_path, "own", answer("<token>"))
    assert find_credentials("a.b", config(tmp_path, credsStore="own")) == IdentityToken(SECRET)


def test_a_helper_that_knows_nothing_leaves_what_is_written(tmp_path):
    helper(tmp_path, "own", 'echo "credentials not found in native keychain"; exit 1')
    environ = config(tmp_path, credsStore="own", auths={"a.b": auth()})
    assert find_credentials("a.b", environ) == Basic("me", SECRET)
    assert find_credentials("c.d", environ) is None


@pytest.mark.parametrize(
    ("script", "timeout_s", "reason"),
    [
        (f"echo {SECRET}; exit 3", 60, r"'docker-credential-own' ended with 3 for 'a.b': log in again"),
        (f'echo \'{{"Username": 7, "Secret": "{SECRET}"}}\'', 60, "gave no answer that can be read: log in again"),
        (f"echo '{SECRET} is not JSON'", 60, "gave no answer that can be read: log in again"),
        ("exec sleep 300", 0.4, "gave no answer for 'a.b' in 0 s: log in again"),
        ("head -c 3000000 /dev/zero", 60, "gave no answer that can be read"),
    ],
    ids=["fails", "of another shape", "babbles", "hangs", "floods"],
)
def test_a_helper_that_does_not_work_is_one_line_without_the_secret(tmp_path, script, timeout_s, reason):
    helper(tmp_path, "own", script)
    known = DockerConfig.read(config(tmp_path, credsStore="own"))
    with pytest.raises(BadInput, match=reason) as caught:
        known.credentials("a.b", timeout_s=timeout_s)
    assert "\n" not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_helper_that_is_missing_or_no_programs_name_is_said(tmp_path):
    with pytest.raises(BadInput, match=r"'docker-credential-gone', which '[^']+' names, does not run: No such file"):
        find_credentials("a.b", config(tmp_path, credsStore="gone"))
    with pytest.raises(BadInput, match="a credential helper that is no program's name"):
        find_credentials("a.b", config(tmp_path, credHelpers={"a.b": "../../bin/sh"}))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": 7}', f'{{"auths": {{"a.b": {{"auth": ["{SECRET}"]}}}}}}', "\xff"]
)
def test_a_config_that_does_not_read_is_one_line_without_what_it_holds(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(
        BadInput, match=r"^'[^\n]+config.json' is not a docker config: mend it or set DOCKER_CONFIG$"
    ) as caught:
        find_credentials("a.b", {"DOCKER_CONFIG": str(tmp_path)})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("text", ["!!", base64.b64encode(b"no colon").decode()])
def test_an_entry_that_is_not_base64_of_user_and_password_is_said_without_it(tmp_path, text):
    with pytest.raises(BadInput, match="not base64 of user:password: log in again") as caught:
        find_credentials("a.b", config(tmp_path, auths={"a.b": {"auth": text}}))
    assert text not in str(caught.value)


def test_no_secret_is_in_what_credentials_say_of_themselves():
    assert SECRET not in repr(Basic("me", SECRET)) + repr(IdentityToken(SECRET))


def test_a_guarded_registry_takes_what_docker_login_keeps(guarded, tmp_path):
    helper(tmp_path, "own", answer("publisher", "correct horse"))
    environ = config(tmp_path, credHelpers={guarded.host: "own"})
    with Registry(guarded.host, find_credentials(guarded.host, environ)) as registry:
        assert registry.push_index("by/helper", "1", ONE) == ONE.entry.descriptor.digest


@pytest.mark.parametrize("token", [SECRET, "an old one"], ids=["right", "wrong"])
def test_an_identity_token_is_changed_for_a_token_and_never_sent_to_the_registry_itself(tmp_path, token):
    with FakeRegistry(token="short lived", identity_token=SECRET) as fake:
        with Registry(fake.host, IdentityToken(token)) as registry:
            if token == SECRET:
                assert registry.push_index("a", "1", ONE) == ONE.entry.descriptor.digest
            else:
                with pytest.raises(BadInput, match="gives no token: give \\(other\\) credentials"):
                    registry.push_index("a", "1", ONE)
        assert fake.asked("POST", "/token")
        assert token not in repr(fake.requests)
