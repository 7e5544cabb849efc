"""The hub as commands see it: their common options, one class that asks it over HTTP, and how answers are printed.

The token (`_logins.py` knows where it lies) never goes over plain http to another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import click
import msgspec

from edgepack.commands._logins import find_token
from edgepack.errors import BadInput, RuntimeFailed, Unreachable

if TYPE_CHECKING:
    import httpx

    from fleet.messages import Assignment, Devices, LogPage, Pipelines, Token

DEFAULT_HUB = "http://127.0.0.1:8090"
_TIMEOUT_S = 60.0
_CONNECT_S = 10.0

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def hub_options(function: F) -> F:
    """The options that every command which speaks to a hub has."""
    function = click.option(
        "--token", envvar="EDGEPACK_TOKEN", help="Admin token. Default: $EDGEPACK_TOKEN, else that of `edgepack login`."
    )(function)
    return click.option(
        "--hub",
        "hub_url",
        envvar="EDGEPACK_HUB",
        default=DEFAULT_HUB,
        show_default=True,
        help="The hub's URL; also $EDGEPACK_HUB.",
    )(function)


class HubClient:
    """One hub, asked as its admin.

    All methods raise BadInput for what the hub refuses, Unreachable when it does not answer.
    """

    def __init__(self, url: str, token: str | None) -> None:
        try:
            import httpx
        except ImportError as error:
            raise BadInput("httpx is not installed: install 'edgepack[hub]' to speak to a hub") from error

        self.url = checked_url(url)
        # a proxy for the outside world is not asked for this very machine
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_S),
            trust_env=not _is_loopback(self.url),
        )
        try:
            self.token = token or self._find_token()
        except BaseException:
            self._http.close()
            raise
        self._http.headers["Authorization"] = f"Bearer {self.token}"

    def __enter__(self) -> HubClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def host(self) -> str:
        """Host and port, as a registry is named."""
        return urlsplit(self.url).netloc

    def make_token(self, group: str | None, expires_s: int) -> Token:
        """Make a join token."""
        from fleet.messages import Token, TokenRequest

        return self._ask("POST", "/tokens", Token, body=TokenRequest(group, expires_s))

    def devices(self) -> Devices:
        """Every enrolled device."""
        from fleet.messages import Devices

        return self._ask("GET", "/devices", Devices)

    def revoke(self, device: str) -> None:
        """Refuse a device from now on."""
        self._send("DELETE", f"/devices/{quote(device, safe='')}")

    def pipelines(self) -> Pipelines:
        """Every published version, newest first."""
        from fleet.messages import Pipelines

        return self._ask("GET", "/pipelines", Pipelines)

    def assignment(self, device: str) -> Assignment:
        """What a device should run."""
        from fleet.messages import Assignment

        return self._ask("GET", f"/assignments/{quote(device, safe='')}", Assignment)

    def assign(self, device: str, pipelines: dict[str, str], sequence: int) -> Assignment | None:
        """Replace an assignment that is still at `sequence`; None when another change came between."""
        from fleet.messages import Assignment, AssignRequest
        from fleet.wire import sequence_tag

        path, body = f"/assignments/{quote(device, safe='')}", AssignRequest(pipelines)
        answer = self._send("PUT", path, body=body, headers={"If-Match": sequence_tag(sequence)}, allowed=(412,))
        return None if answer.status_code == 412 else self._read(answer, Assignment)

    def logs(self, **query: str | int | None) -> LogPage:
        """One page of the log."""
        from fleet.messages import LogPage

        return self._ask(
            "GET", "/logs", LogPage, query={name: value for name, value in query.items() if value is not None}
        )

    def _find_token(self) -> str:
        """The token that is remembered. Raises Unreachable where it is the hub that lacks, and not only its token."""
        try:
            return find_token(self.url)
        except BadInput:
            self._check_alive()
            raise

    def _check_alive(self) -> None:
        answer = self._request("GET", "/healthz")
        if not answer.is_success or b'"status"' not in answer.content:
            raise RuntimeFailed(f"'{self.url}' gives no sign of a hub's life: is it an edgepack hub?")

    def _ask(
        self, method: str, path: str, kind: type[T], *, body: object = None, query: dict[str, Any] | None = None
    ) -> T:
        return self._read(self._send(method, path, body=body, query=query), kind)

    def _read(self, answer: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.MsgspecError as error:
            raise RuntimeFailed(
                f"'{self.url}' answered with something else than a {kind.__name__}: is it an edgepack hub?"
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        allowed: tuple[int, ...] = (),
    ) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        sent = {**({"Content-Type": "application/json"} if body is not None else {}), **(headers or {})}
        answer = self._request(method, f"/api/v1{path}", content=content, params=query, headers=sent)
        if not answer.is_success and answer.status_code not in allowed:
            raise _refusal(self.url, answer)
        return answer

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        import httpx

        try:
            return self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            if _is_plain_http(error):
                raise BadInput(
                    f"hub '{self.url}' speaks plain http there: use http:// on the hub's own machine, or start it with "
                    "--tls-cert and --tls-key",
                    field="hub",
                ) from error
            raise Unreachable(
                f"hub '{self.url}' did not answer ({_reason(error)}): is it running? start one with `edgepack hub`"
            ) from error


def _is_plain_http(error: Exception) -> bool:
    """Whether a TLS greeting was answered by something that is no TLS (OpenSSL 3.2 has other words for it)."""
    said = str(error).lower().replace("_", " ")
    return "wrong version number" in said or "record layer failure" in said


def _refusal(url: str, answer: httpx.Response) -> Exception:
    from fleet.messages import ErrorBody

    try:
        said = msgspec.json.decode(answer.content, type=ErrorBody).error
    except msgspec.MsgspecError:
        said = "no reason given: is it an edgepack hub?"
    if answer.status_code >= 500 or answer.status_code in (408, 429):
        return Unreachable(f"hub '{url}' answered {answer.status_code}: {said}")
    return BadInput(f"hub '{url}': {said}")


def checked_url(text: str) -> str:
    """Return a hub's URL without a path. Raises BadInput unless it is https, or http to this very machine."""
    parts = urlsplit(text.strip())
    try:
        whole = (
            parts.scheme in ("http", "https")
            and parts.hostname
            and not (parts.username or parts.query or parts.path.strip("/"))
        )
        _ = parts.port
    except ValueError:
        whole = False
    if not whole:
        raise BadInput(f"hub '{text}' is not a URL: expected http://127.0.0.1:8090 or https://host", field="hub")
    if parts.scheme == "http" and not _is_loopback(text):
        raise BadInput(f"hub '{text}' is another machine and has no TLS: use https://{parts.netloc}", field="hub")
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(url: str) -> bool:
    from hub.config import is_loopback

    return is_loopback(urlsplit(url.strip()).hostname or "")


def print_json(value: object) -> None:
    """Print exactly one JSON object."""
    click.echo(msgspec.json.encode(value))


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows under a head, columns aligned. What no letter is, in names that others gave, is shown as `?`: it could
    forge a row, or speak to the terminal.
    """
    rows = [tuple("".join(each if each.isprintable() else "?" for each in cell) for cell in row) for row in rows]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
