"""A token server as registries send their clients to (distribution, "Token Authentication Implementation"): Basic in, a
signed JWT out, which a real docker-registry checks by itself.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.certificates import make_certificate

SERVICE, ISSUER = "plant registry", "plant tokens"


class TokenServer:
    """Used as a context manager. `users` may do all, anybody else may pull. `asked` are the scopes it was asked for."""

    def __init__(self, folder: Path, users: dict[str, str], lives_s: int = 300) -> None:
        self.certificate, self._key = make_certificate(folder, "tokens")
        self.users, self.lives_s = users, lives_s
        self.asked: list[str] = []

    def __enter__(self) -> TokenServer:
        server = self

        class Door(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                status, body = server.answer(urlsplit(self.path).query, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def config(self) -> str:
        """The part of a docker-registry's configuration that sends its clients here."""
        realm = f"http://127.0.0.1:{self._http.server_port}/token"
        said = f"realm: {realm}, service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {self.certificate}"
        return f"auth: {{token: {{{said}}}}}\n"

    def answer(self, query: str, authorization: str) -> tuple[int, bytes]:
        """Give a token for what was asked, as far as the user may have it."""
        asked = parse_qs(query)
        scopes = " ".join(asked.get("scope", [])).split()
        self.asked += scopes
        user = self._user(authorization)
        if authorization and user is None:
            return 401, b'{"details": "no such user"}'
        access = [_access(scope, user is not None) for scope in scopes]
        return 200, json.dumps({"token": self._token(user or "", access)}).encode()

    def _user(self, authorization: str) -> str | None:
        sent = base64.b64decode(authorization.removeprefix("Basic ") or b"").decode()
        name, _, password = sent.partition(":")
        return name if name and self.users.get(name) == password else None

    def _token(self, subject: str, access: list[dict[str, object]]) -> str:
        now = int(time.time())
        chain = "".join(self.certificate.read_text().splitlines()[1:-1])
        head = {"typ": "JWT", "alg": "RS256", "x5c": [chain]}
        times = {"iat": now, "nbf": now - 10, "exp": now + self.lives_s}
        said = {"iss": ISSUER, "sub": subject, "aud": SERVICE, "jti": uuid.uuid4().hex, "access": access, **times}
        signed = f"{_part(json.dumps(head).encode())}.{_part(json.dumps(said).encode())}"
        sign = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        signature = subprocess.run(sign, input=signed.encode(), capture_output=True, check=True).stdout
        return f"{signed}.{_part(signature)}"


def _access(scope: str, is_known: bool) -> dict[str, object]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    allowed = [action for action in actions.split(",") if is_known or action == "pull"]
    return {"type": kind, "name": name, "actions": allowed}


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
