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


ONLINE = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}


@pytest.fixture(scope="module")
def started():
    with Browser() as browser:
        browser.do("Network.enable")
        yield browser


@pytest.fixture
def browser(started):
    """The one browser, as if just started: a start takes longer than most of these tests."""
    started.do("Network.emulateNetworkConditions", **ONLINE)
    started.do("Emulation.setEmulatedMedia", features=[])
    started.do("Emulation.clearDeviceMetricsOverride")
    started.errors.clear()
    yield started
    started.do("Page.navigate", url="about:blank")
    started.until("location.href === 'about:blank'")


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
    browser.until("document.querySelector('.state').textContent === 'healthy'")
    assert browser.value("document.querySelector('.verdict').textContent") == "ready, no request yet"
    browser.until("document.querySelector('.empty').hidden === false")
    browser.value("document.querySelector('button').click()")
    browser.until("document.querySelector('.answer p').textContent.startsWith('200 in ')")
    assert '"y": [12]' in browser.value("document.querySelector('.answer pre').textContent")
    browser.until("document.querySelectorAll('tbody tr').length === 1")
    cells = browser.value("[...document.querySelectorAll('tbody td')].map(each => each.textContent)")
    assert cells[1:] == ['{"x":[1,2,3]}', '{"y":[12]}', "high"]
    browser.until("document.querySelector('[data-figure=requests]').textContent === '1'")
    browser.until("document.querySelector('[data-figure=median]').textContent.match(/[µm]s$/) !== null")
    assert browser.value("document.querySelector('polyline').getAttribute('points')")
    browser.until("document.querySelector('.verdict').textContent === 'healthy'")
    assert browser.value("document.querySelector('header').dataset.level") == "good"
    assert browser.errors == []


def test_what_a_row_lacks_is_shown_and_the_last_rows_are_the_newest(demo, browser):
    for number in range(9):
        demo.post(rows=[{"x": [number, 0, 0]}])
    browser.open(demo.url + "/")
    browser.until("document.querySelectorAll('tbody tr').length === 6")
    assert browser.value("document.querySelector('tbody td:nth-child(2)').textContent") == '{"x":[8,0,0]}'
    browser.value("document.querySelector('textarea').value = '[{}]', document.querySelector('button').click()")
    browser.until("document.querySelector('.answer p').textContent.startsWith('400 in ')")
    assert "no field 'x'" in browser.value("document.querySelector('.answer pre').textContent")
    browser.until("document.querySelector('.state').textContent === 'needs a look'")
    said = "demo: 1 of 1 requests did not fit in the last minute"
    assert browser.value("document.querySelector('.why').textContent") == said
    assert browser.value("document.querySelector('article').dataset.level") == "warn"


def test_the_page_follows_dark_mode_and_says_when_the_agent_is_gone(demo, browser):
    browser.open(demo.url + "/")
    light = browser.value("getComputedStyle(document.body).backgroundColor")
    browser.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.value("getComputedStyle(document.body).backgroundColor") != light
    browser.until("document.querySelector('.state').textContent === 'healthy'")
    browser.do("Network.emulateNetworkConditions", **{**ONLINE, "offline": True})
    browser.until("document.querySelector('.state').textContent === 'no answer from the agent'")
    assert browser.value("document.querySelector('header').dataset.level") == "bad"
    assert browser.value("document.querySelector('.why').textContent").startswith("Last heard of at ")


def test_requests_that_fail_turn_the_page_red_and_so_does_a_pipeline_that_loads(demo, browser):
    browser.open(demo.url + "/")
    browser.until("document.querySelector('.state').textContent === 'healthy'")
    active = demo.serving.pipelines[0]
    active.__dict__["short_way"], infer = None, active.loaded.infer
    active.loaded.infer = None  # a fault of ours
    assert demo.post(rows=[{"x": [1, 2, 3]}]).status_code == 500
    active.loaded.infer = infer
    browser.until("document.querySelector('.state').textContent === 'needs help'")
    said = "demo: 1 of 1 requests failed in the last minute"
    assert browser.value("document.querySelector('.why').textContent") == said
    demo.serving.expect(["other"])
    browser.until("document.querySelector('.state').textContent === 'not ready: loading other'")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(demo, browser):
    for number in range(8):
        demo.post(rows=[{"x": [number * 1.23456789, 0.1, 12345.678]}])
    browser.do("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    browser.open(demo.url + "/")
    browser.until("document.querySelectorAll('tbody tr').length === 6")
    assert browser.value("document.documentElement.scrollWidth") == 360
    assert browser.value("document.querySelector('header').getBoundingClientRect().bottom") < 740 / 4
    small = "[...document.querySelectorAll('button, summary')].filter(each => each.getBoundingClientRect().height < 20)"
    assert browser.value(small + ".length") == 0
