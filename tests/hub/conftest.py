"""Hubs for the tests: one each, or one for a module whose tests change nothing."""

from __future__ import annotations

import contextlib

import pytest

from tests.hub.running import Clock, Pusher, RunningHub, small_bundle


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def running(tmp_path, clock):
    with contextlib.closing(RunningHub(tmp_path / "hub", clock)) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One hub for the tests of a module that change nothing the others see: refusals, reading."""
    with contextlib.closing(RunningHub(tmp_path_factory.mktemp("shared") / "hub", Clock())) as made:
        yield made


@pytest.fixture
def published(running, tmp_path):
    """An index that is published as `wine:latest`."""
    index = small_bundle(tmp_path / "bundle")
    answer = Pusher(running).publish(index)
    assert answer.status_code == 201, answer.text
    return index
