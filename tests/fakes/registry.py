"""A registry in memory that can lie: wrong bytes, cuts, ignored ranges, endless answers, redirects, lost uploads.

With `Lies()` as they stand it is honest and passes the same suite as the real registries
(`tests/oci/test_registries.py`); each lie is something that a real one cannot be made to do on demand.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import ssl
import sys
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Lies:
    """What the registry does wrong; times are counted down where a number says how often."""

    fail_first: int = 0  # so many requests are answered with `fail_status`
    fail_status: int = 500
    fail_says: str = ""  # as the message of an error
    retry_after: str = ""
    wrong_bytes: bool = False  # the last byte of each blob is another
    cut_after: int | None = None  # the connection breaks after so many bytes of a blob's answer
    cuts: int = 1_000_000  # so often
    ignore_range: bool = False  # 200 and the whole blob
    refuse_range: bool = False  # 416
    shift_range: bool = False  # 206 from one byte further than asked
    endless: bool = False  # a blob without length that never ends
    wrong_length: bool = False  # says that a blob is one byte longer, and sends it
    redirect_blobs_to: str = ""  # 307 for blobs, to this origin
    upload_to: str = ""  # origin in the Location of an upload
    cut_uploads: int = 0  # so many PATCH requests break after half of their bytes were taken
    forget_uploads: bool = False  # after such a cut the upload is unknown
    large_manifests: bool = False  # a manifest comes with 5 MiB of blanks behind it
    wrong_manifests: bool = False  # another manifest than asked for


@dataclass
class FakeRegistry:
    """Used as a context manager; `host` is where it listens."""

    lies: Lies = field(default_factory=Lies)
    user: tuple[str, str] | None = None  # Basic: user and password
    token: str | None = None  # Bearer: this one, or one fetched from /token as `user`
    realm: str = ""  # where tokens are given, when not here
    identity_token: str | None = None  # what /token takes in a POST, as registries with their own login do
    certificate: Path | None = None  # certificate and key in one file: then it speaks TLS
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[bytes, str]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def __enter__(self) -> FakeRegistry:
        registry = self

        class Door(_Door):
            fake = registry

        self._server = _Server(("127.0.0.1", 0), Door)
        self.host = f"127.0.0.1:{self._server.server_port}"
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            # the handshake belongs to the thread of the connection, not to the one that accepts
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, method: str, part: str = "") -> list[dict[str, str]]:
        """The headers of the requests of a method whose path holds `part`."""
        return [headers for said, path, headers in self.requests if said == method and part in path]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handle_error(request, client_address)


class _Door(BaseHTTPRequestHandler):
    fake: FakeRegistry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

    def _serve(self) -> None:
        lies = self.fake.lies
        self.fake.requests.append((self.command, self.path, dict(self.headers)))
        length = int(self.headers.get("Content-Length") or 0)
        if self.command == "PATCH" and lies.cut_uploads > 0:
            return self._cut_upload(length)
        self.body = self.rfile.read(length)
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if lies.fail_first > 0:
            lies.fail_first -= 1
            said = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": lies.fail_says}]}).encode()
            waits = {"Retry-After": lies.retry_after} if lies.retry_after else {}
            return self._answer(lies.fail_status, said if lies.fail_says else b"", waits)
        if url.path == "/token":
            return self._give_token()
        if not self._is_allowed():
            return self._challenge()
        for pattern, method in _ROUTES:
            if found := re.fullmatch(pattern, url.path):
                return getattr(self, method)(*found.groups())
        self._error(404, "UNSUPPORTED")

    # --- who asks

    def _is_allowed(self) -> bool:
        sent = self.headers.get("Authorization", "")
        if self.fake.token is not None:
            return sent == f"Bearer {self.fake.token}"
        return self.fake.user is None or sent == self._basic()

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(":".join(self.fake.user or ("", "")).encode()).decode()

    def _challenge(self) -> None:
        scheme = 'Basic realm="fake"'
        if self.fake.token is not None:
            realm = self.fake.realm or f"http://{self.fake.host}/token"
            scheme = f'Bearer realm="{realm}",service="fake",scope="repository:a:pull"'
        self._answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', {"WWW-Authenticate": scheme})

    def _give_token(self) -> None:
        form = {key: values[0] for key, values in parse_qs(self.body.decode()).items()}
        if self.fake.identity_token is not None:
            right = (form.get("grant_type"), form.get("refresh_token")) == ("refresh_token", self.fake.identity_token)
        else:
            right = self.fake.user is None or self.headers.get("Authorization") == self._basic()
        self._answer(200 if right else 401, json.dumps({"token": self.fake.token} if right else {}).encode())

    # --- blobs

    def blob(self, repository: str, digest: str) -> None:
        lies, data = self.fake.lies, self.fake.blobs.get((repository, digest))
        if data is None:
            return self._error(404, "BLOB_UNKNOWN")
        if lies.redirect_blobs_to:
            return self._answer(307, headers={"Location": f"{lies.redirect_blobs_to}{self.path}?signature=secret"})
        if self.command == "GET" and lies.endless:
            return self._flood()
        if lies.wrong_bytes:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if lies.wrong_length:
            data += b"!"
        self._ranged(data)

    def _ranged(self, data: bytes) -> None:
        lies, asked = self.fake.lies, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked or lies.ignore_range:
            return self._answer(200, data, {"Content-Type": "application/octet-stream"}, cut=True)
        start, end = int(asked[1]) + lies.shift_range, min(int(asked[2]) + 1, len(data))
        if lies.refuse_range or start >= len(data):
            return self._answer(416)
        said = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        self._answer(206, data[start:end], said, cut=True)

    def _flood(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))

    # --- uploads

    def begin(self, repository: str) -> None:
        source = (self.query.get("from", ""), self.query.get("mount", ""))
        if source in self.fake.blobs:
            self.fake.blobs[repository, source[1]] = self.fake.blobs[source]
            return self._answer(201, headers={"Location": f"/v2/{repository}/blobs/{source[1]}"})
        name = uuid.uuid4().hex
        self.fake.uploads[name] = bytearray()
        self._answer(202, headers=self._place(repository, name))

    def upload(self, repository: str, name: str) -> None:
        held = self.fake.uploads.get(name)
        if held is None:
            return self._error(404, "BLOB_UPLOAD_UNKNOWN")
        headers = {**self._place(repository, name), "Range": f"0-{max(0, len(held) - 1)}"}
        if self.command == "GET":
            return self._answer(204, headers=headers)
        said = re.fullmatch(r"(\d+)-(\d+)", self.headers.get("Content-Range", ""))
        if said and int(said[1]) != len(held):
            return self._answer(416, headers=headers)
        held += self.body
        if self.command == "PATCH":
            return self._answer(202, headers={**headers, "Range": f"0-{len(held) - 1}"})
        digest = f"sha256:{hashlib.sha256(held).hexdigest()}"
        if digest != self.query.get("digest"):
            return self._error(400, "DIGEST_INVALID")
        self.fake.blobs[repository, digest] = bytes(held)
        self._answer(201, headers={"Location": f"/v2/{repository}/blobs/{digest}"})

    def _place(self, repository: str, name: str) -> dict[str, str]:
        return {"Location": f"{self.fake.lies.upload_to}/v2/{repository}/blobs/uploads/{name}?_state=x"}

    def _cut_upload(self, length: int) -> None:
        self.fake.lies.cut_uploads -= 1
        name = urlsplit(self.path).path.rpartition("/")[2]
        half = self.rfile.read(length // 2)
        if self.fake.lies.forget_uploads:
            del self.fake.uploads[name]
        else:
            self.fake.uploads[name] += half
        self._break()

    # --- manifests

    def manifest(self, repository: str, pointer: str) -> None:
        if self.command == "PUT":
            return self._keep_manifest(repository, pointer)
        found = self.fake.manifests.get((repository, pointer))
        if found is None:
            return self._error(404, "MANIFEST_UNKNOWN")
        data, media_type = found
        data += b" " * (5 << 20) if self.fake.lies.large_manifests else b""
        data += b" " if self.fake.lies.wrong_manifests else b""
        self._answer(200, data, {"Content-Type": media_type, "Docker-Content-Digest": _digest(found[0])})

    def _keep_manifest(self, repository: str, pointer: str) -> None:
        said = json.loads(self.body)
        named = [said["config"], *said["layers"]] if "config" in said else []
        if any((repository, blob["digest"]) not in self.fake.blobs for blob in named):
            return self._error(404, "MANIFEST_BLOB_UNKNOWN")
        for key in (pointer, _digest(self.body)):
            self.fake.manifests[repository, key] = (self.body, self.headers["Content-Type"])
        self._answer(201, headers={"Docker-Content-Digest": _digest(self.body)})

    def referrers(self, repository: str, subject: str) -> None:
        listed = []
        for (where, pointer), (data, media_type) in self.fake.manifests.items():
            said = json.loads(data)
            if where == repository and ":" in pointer and said.get("subject", {}).get("digest") == subject:
                entry = {"mediaType": media_type, "digest": pointer, "size": len(data)}
                listed.append({**entry, "artifactType": said.get("artifactType")})
        document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": listed}
        self._answer(200, json.dumps(document).encode(), {"Content-Type": _INDEX})

    def base(self) -> None:
        self._answer(200, b"{}")

    # --- answers

    def _error(self, status: int, code: str) -> None:
        self._answer(status, json.dumps({"errors": [{"code": code, "message": code}]}).encode())

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, cut: bool = False) -> None:
        lies = self.fake.lies
        self.send_response(status)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and lies.cut_after is not None and lies.cuts > 0 and len(body) > lies.cut_after:
            lies.cuts -= 1
            self.wfile.write(body[: lies.cut_after])
            return self._break()
        self.wfile.write(body)

    def _break(self) -> None:
        """End the connection as a lost link does: nothing more comes."""
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


_NAME, _DIGEST = r"([a-z0-9/._-]+)", r"(sha256:[0-9a-f]{64})"
_ROUTES = (
    (r"/v2/", "base"),
    (rf"/v2/{_NAME}/blobs/{_DIGEST}", "blob"),
    (rf"/v2/{_NAME}/blobs/uploads/", "begin"),
    (rf"/v2/{_NAME}/blobs/uploads/([0-9a-f]+)", "upload"),
    (rf"/v2/{_NAME}/manifests/([A-Za-z0-9._:-]+)", "manifest"),
    (rf"/v2/{_NAME}/referrers/{_DIGEST}", "referrers"),
)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
