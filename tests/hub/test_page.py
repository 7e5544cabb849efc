"""The page: for who knows the admin token, escaped, and complete."""

from __future__ import annotations

import httpx
import pytest

from columns import Columns, Schema
from hub.web import session
from tests.hub.running import frame, rows_block, segment


@pytest.fixture
def browser(running):
    with httpx.Client(base_url=running.url, trust_env=False, follow_redirects=True) as made:
        yield made


def sign_in(browser, running) -> httpx.Response:
    return browser.post("/login", data={"token": running.hub.admin_token})


def test_without_signing_in_there_is_only_the_form(browser, running):
    running.device("press-1")
    page = browser.get("/")
    assert page.status_code == 200 and 'type="password"' in page.text and "press-1" not in page.text


def test_a_wrong_token_is_told_and_gives_no_cookie(browser):
    answer = browser.post("/login", data={"token": "epa_wrong"})
    assert answer.status_code == 403 and "not the admin token" in answer.text and not browser.cookies


def test_the_cookie_is_kept_from_scripts_and_other_sites(browser, running):
    answer = sign_in(browser, running).history[0]
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and running.hub.admin_token not in cookie


def test_the_page_shows_devices_pipelines_and_rows(browser, running, published):
    device = running.device("press-1")
    running.http.put(
        "/api/v1/assignments/press-1", json={"pipelines": {"wine": published.digest}}, headers=running.admin
    )
    report = {"manifest": published.images[1].digest, "state": "failed", "reason": "golden rows <b>differ</b>"}
    device.put(
        "/api/v1/inventory", {"target": "x86/none", "version": "1", "sequence": 1, "pipelines": {"wine": report}}
    )
    device.upload(0, segment(0, 40))
    page = sign_in(browser, running).text
    for shown in ("press-1", "x86/none", "just now", "failed", published.digest[7:19], "arm/none, x86/none", "r-39"):
        assert shown in page
    assert "golden rows &lt;b&gt;differ" in page and "<script" not in page and "://" not in page
    assert page.index("r-39") < page.index("r-38")


def test_text_from_a_device_cannot_become_markup(browser, running):
    block = rows_block(0, 1, request="<script>alert(1)</script>")
    running.device().upload(0, frame(0, 1, block=block))
    page = sign_in(browser, running).text
    assert "<script" not in page and "&lt;script&gt;" in page


def test_everything_the_page_needs_comes_from_the_hub(browser, running):
    sign_in(browser, running)
    assert browser.get("/static/hub.css").headers["Content-Type"].startswith("text/css")
    assert browser.get("/static/icon.svg").status_code == browser.get("/favicon.ico").status_code == 200
    assert "default-src 'none'" in browser.get("/").headers["Content-Security-Policy"]


def test_signing_out_ends_it(browser, running):
    sign_in(browser, running)
    assert "Newest rows" in browser.get("/").text
    assert "password" in browser.post("/logout").text


def test_a_cookie_ends_with_its_time_and_cannot_be_made():
    cookie = session.sign_in("token", 1000)
    assert session.is_signed_in(cookie, "token", 1001)
    assert not session.is_signed_in(cookie, "token", 1000 + session.LASTS_S)
    assert not session.is_signed_in(cookie, "other", 1001)
    until, _, signature = cookie.partition(".")
    for forged in ("", "x", f"{int(until) + 1}.{signature}", f"{until}.", f".{signature}", "9" * 20 + ".\xff"):
        assert not session.is_signed_in(forged, "token", 1001)


def test_health_and_metrics_need_no_token_and_name_nobody(running):
    running.device("press-1").upload(0, segment(0, 4))
    assert running.http.get("/healthz").json() == {"status": "ok"}
    text = running.http.get("/metrics").text
    assert "edgepack_hub_rows_total 4\n" in text and "edgepack_hub_devices_seen 1\n" in text
    assert 'edgepack_hub_requests_total{method="PUT",status="201"} 1' in text
    assert "press-1" not in text


def test_strange_values_of_a_device_do_not_break_the_page_or_the_log(browser, running):
    device = running.device()
    strange = {"time": "int64", "anomaly.count": "string", "metadata.request_id": "list<int64>", "in.x": "binary"}
    values = {"time": [2**62], "anomaly.count": ["many"], "metadata.request_id": [[1]], "in.x": [b"\xff"]}
    device.upload(0, frame(0, 1, block=Columns.of(Schema.parse(strange), values)))
    texts = {"time": "string?", "out.f": "float64", "metadata.request_id": "string?"}
    block = Columns.of(Schema.parse(texts), {"time": [None], "out.f": [float("nan")], "metadata.request_id": [None]})
    device.upload(1, frame(1, 1, block=block))
    assert "Newest rows" in sign_in(browser, running).text
    assert len(running.every_row()) == 2 and running.every_row(request_id="1") == []
