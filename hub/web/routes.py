"""The page's routes: `/` for who is signed in, the form for who is not, and one style sheet."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, render_template, request, send_from_directory
from werkzeug.wrappers import Response as AnyResponse

from hub.hub import Hub
from hub.web import session
from hub.web.views import page_values

_COOKIE = "edgepack_hub"
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)


def make_web(hub: Hub) -> Blueprint:
    """All routes of the page."""
    web = Blueprint("web", __name__, template_folder="templates", static_folder="static", static_url_path="/static")
    web.add_url_rule("/", "home", lambda: _home(hub), methods=["GET"])
    web.add_url_rule("/login", "login", lambda: _login(hub), methods=["POST"])
    web.add_url_rule("/logout", "logout", _logout, methods=["POST"])
    web.add_url_rule(
        "/favicon.ico", "icon", lambda: send_from_directory(web.static_folder or "", "icon.svg"), methods=["GET"]
    )
    web.after_request(_protect)
    return web


def _home(hub: Hub) -> Response:
    if not session.is_signed_in(request.cookies.get(_COOKIE, ""), hub.admin_token, hub.clock()):
        return Response(render_template("login.html", wrong=False), 200)
    return Response(render_template("home.html", **page_values(hub)), 200)


def _login(hub: Hub) -> AnyResponse:
    request.max_content_length = 4096
    if not hub.access.is_admin_token(request.form.get("token", "").strip()):
        return Response(render_template("login.html", wrong=True), 403)
    response = redirect("/", 303)
    cookie = session.sign_in(hub.admin_token, hub.clock())
    response.set_cookie(
        _COOKIE, cookie, max_age=session.LASTS_S, httponly=True, samesite="Strict", secure=request.scheme == "https"
    )
    return response


def _logout() -> AnyResponse:
    response = redirect("/", 303)
    response.delete_cookie(_COOKIE, httponly=True, samesite="Strict")
    return response


def _protect(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    if not request.path.startswith("/static/"):
        response.headers["Cache-Control"] = "no-store"
    return response
