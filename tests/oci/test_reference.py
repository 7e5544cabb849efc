"""How people name an image in a registry."""

from __future__ import annotations

import pytest

from edgepack.errors import BadInput
from oci.reference import Reference, is_loopback

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "host", "repository", "pointer"),
    [
        ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000", "a/b", "v1"),
        ("localhost/a", "localhost", "a", "latest"),
        ("registry.example/team/wine-line:1.2_3", "registry.example", "team/wine-line", "1.2_3"),
        (f"hub:8090/a@{DIGEST}", "hub:8090", "a", DIGEST),
        (f"[::1]:5000/a/b/c__d:t@{DIGEST}", "[::1]:5000", "a/b/c__d", DIGEST),
    ],
)
def test_a_reference_is_read_and_written_the_same(text, host, repository, pointer):
    reference = Reference.parse(text)
    assert (reference.host, reference.repository, reference.pointer) == (host, repository, pointer)
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a/b", "debian:12", "registry.example", "registry.example/", "registry.example/A", "x.example/a//b",
        "x.example/../b", "x.example/a:", "x.example/a:b c", "x.example/a@sha256:abc", f"x.example/a@md5:{'a' * 32}",
        "x.example/" + "a" * 300, "https://x.example/a", "x.example/a:" + "t" * 129, "-x.exam ple/a", "x.example/a?b",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(BadInput) as caught:
        Reference.parse(text)
    assert "\n" not in str(caught.value)


def test_a_password_in_a_reference_is_not_repeated():
    with pytest.raises(BadInput) as caught:
        Reference.parse("user:hunter2@registry.example/a")
    assert "hunter2" not in str(caught.value)


HERE = ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000", "a.localhost"]
ELSEWHERE = ["localhost.example", "127.0.0.1.example", "10.0.0.1:5000", "[::2]:1", "hub"]


@pytest.mark.parametrize("host", HERE + ELSEWHERE)
def test_this_machine_is_known_by_name_alone(host):
    assert is_loopback(host) == (host in HERE)
