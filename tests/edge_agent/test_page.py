"""The status page, as text and in a real browser."""

from __future__ import annotations

import re

import pytest

from tests.browser import Browser
from tests.edge_agent.served import Front, Served


@pytest.fixture
def demo(tmp_path):
    with Served(tmp_path, Front()) as served:
        served.add(validations={"high": "out.y[0] > 5"})
        yield served


@pytest.fixture
def browser():
    with Browser() as browser:
        yield browser


def page(served):
    return served.get("/", headers={"Accept": "text/html"})


def test_the_page_asks_nothing_of_anybody_else(demo):
    answer = page(demo)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r'(?:src|href)="(?!/)', answer.text)
    assert not re.search(r"https?://", answer.text)


def test_the_page_shows_names_as_text_whatever_they_hold(demo):
    demo.add("demo", validations={"high": 'out.y[0] > 5 and "</script><script>x" != "a"'})
    assert "</script><script>x" not in page(demo).text


def test_the_page_says_what_is_missing(tmp_path):
    with Served(tmp_path, Front()) as served:
        assert "not ready: no pipeline is active" in page(served).text


def test_a_row_is_tried_and_seen_in_a_browser(demo, browser):
    browser.open(demo.url + "/")
    browser.until("document.querySelector('.state').textContent === 'ready'")
    browser.until("document.querySelector('.empty').hidden === false")
    browser.value("document.querySelector('button').click()")
    browser.until("document.querySelector('form pre').textContent.startsWith('200 in ')")
    assert '"y": [\n        12\n      ]' in browser.value("document.querySelector('form pre').textContent")
    browser.until("document.querySelectorAll('tbody tr').length === 1")
    cells = browser.value("[...document.querySelectorAll('tbody td')].map(each => each.textContent)")
    assert cells[1:] == ['{"x":[1,2,3]}', '{"y":[12]}', "high"]
    browser.until("document.querySelector('[data-figure=requests]').textContent === '1'")
    browser.until("document.querySelector('[data-figure=median]').textContent.match(/[µm]s$/) !== null")
    assert browser.value("document.querySelector('polyline').getAttribute('points')")
    assert browser.errors == []


def test_what_a_row_lacks_is_shown_and_the_last_rows_are_the_newest(demo, browser):
    for number in range(9):
        demo.post(rows=[{"x": [number, 0, 0]}])
    browser.open(demo.url + "/")
    browser.until("document.querySelectorAll('tbody tr').length === 6")
    assert browser.value("document.querySelector('tbody td:nth-child(2)').textContent") == '{"x":[8,0,0]}'
    browser.value("document.querySelector('textarea').value = '[{}]', document.querySelector('button').click()")
    browser.until("document.querySelector('form pre').textContent.startsWith('400 in ')")
    assert "no field 'x'" in browser.value("document.querySelector('form pre').textContent")


def test_the_page_follows_dark_mode_and_says_when_the_agent_is_gone(demo, browser):
    browser.open(demo.url + "/")
    light = browser.value("getComputedStyle(document.body).backgroundColor")
    browser.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.value("getComputedStyle(document.body).backgroundColor") != light
    browser.until("document.querySelector('.state').textContent === 'ready'")
    gone = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.do("Network.enable")
    browser.do("Network.emulateNetworkConditions", **gone)
    browser.until("document.querySelector('.state').textContent === 'no answer from the agent'")
