"""Object stores, as far as nobody is asked: which may be spoken to in the clear, and where a listing ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from edgepack.errors import BadInput
from packager.dialects import cortex_stores


@pytest.mark.parametrize(
    "endpoint, expected",
    [
        ("http://127.0.0.1:9000", True),
        ("http://localhost", True),
        ("http://[::1]:9000/", True),
        ("https://127.0.0.1:9000", False),
        ("https://store.example.com", False),
    ],
)
def test_plain_http_is_for_this_machine(endpoint: str, expected: bool) -> None:
    assert bool(cortex_stores._plain_http(endpoint)) is expected


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1.example.com", "localhost.example.com:9000", "127.0.0.1:9000@store.example.com", "store.example.com"],
)
def test_plain_http_to_another_machine_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
    with pytest.raises(
        BadInput, match=r"example\.com(:9000)?' is named with http://, which is for this machine"
    ) as bad:
        cortex_stores.mark_of("s3://models/factors")
    assert "127.0.0.1:9000" not in str(bad.value)


def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:secret@[store")
    with pytest.raises(BadInput, match=r"^'\[store' is no address of a store: expected https://host"):
        cortex_stores.mark_of("s3://models/factors")


class Endless:
    """A bucket that no disk holds: no real store is as large in a test."""

    def __init__(self, size: int) -> None:
        self.size, self.pages = size, 0

    def list(self, prefix: str) -> Iterator[list[dict[str, Any]]]:
        """Pages of objects, without an end."""
        while True:
            self.pages += 1
            said = {"size": self.size, "last_modified": datetime.fromtimestamp(self.pages, timezone.utc)}
            yield [{"path": f"{prefix}/{self.pages}/{each}", **said} for each in range(1000)]


@pytest.mark.parametrize("size, pages", [(1, 11), (1 << 30, 1)])
def test_a_listing_ends_where_it_has_become_too_long(size: int, pages: int) -> None:
    store = Endless(size)
    with pytest.raises(BadInput, match="'s3://models/all' has more than 10000 objects, or 16 GiB: name a prefix"):
        cortex_stores._listed(store, "s3://models/all")
    assert store.pages == pages, "no page more than it takes to know"
