"""The commands that speak to a hub, against a real one: what they print, where they find the token, how they fail."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from bundle.bundle import version_of
from edgepack.commands import program
from edgepack.commands._hub_client import checked_url
from edgepack.commands._logins import find_token, logins_path
from edgepack.commands.devices import seconds
from edgepack.errors import BadInput
from edgepack.launch import run
from tests.hub.running import Clock, Pusher, RunningHub, segment, small_bundle

EXAMPLE = Path(__file__).parents[2] / "examples" / "wine-line"


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("EDGEPACK_HUB", "EDGEPACK_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    clock = Clock()
    clock.now = time.time()
    with contextlib.closing(RunningHub(tmp_path_factory.mktemp("commands") / "hub", clock)) as made:
        yield made


@pytest.fixture
def edgepack(capsys, monkeypatch, hub):
    """Run a command line; the hub and its token come from the environment. Returns exit code, output, errors."""
    monkeypatch.setenv("EDGEPACK_HUB", hub.url)
    monkeypatch.setenv("EDGEPACK_TOKEN", hub.hub.admin_token)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(lambda: program, "edgepack", list(arguments))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return call


def said(result: tuple[int, str, str]):
    """The one JSON object of a command that ended well."""
    code, out, err = result
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def one_line(result: tuple[int, str, str], code: int) -> str:
    assert result[0] == code and result[1] == "" and result[2].count("\n") == 1, result
    return result[2]


def test_a_project_is_published_deployed_and_listed(edgepack, hub, tmp_path):
    project = shutil.copytree(EXAMPLE, tmp_path / "wine-line")
    published = said(edgepack("publish", str(project), "--json"))
    assert published["pipeline"] == "wine-line" and sorted(published["manifests"]) == ["arm/none", "x86/none"]
    assert published["version"] == version_of(published["index"]) and published["parity"]["rows"] > 0
    again = said(edgepack("publish", str(project), "--json"))
    assert again["index"] == published["index"]
    listed = said(edgepack("pipelines", "--json"))["pipelines"]
    assert [view["index"] for view in listed if view["pipeline"] == "wine-line"] == [published["index"]]
    device = hub.device("wine-1")
    deployed = said(edgepack("deploy", "wine-line", "--device", "wine-1", "--json"))
    assert deployed["sequence"] == 1 and deployed["manifest"] == published["manifests"]["x86/none"]
    assert device.get("/api/v1/assignment").json()["pipelines"]["wine-line"]["index"] == published["index"]
    for manifest in published["manifests"].values():
        referrers = device.get(f"/v2/wine-line/referrers/{manifest}").json()["manifests"]
        assert [each["artifactType"] for each in referrers] == ["application/vnd.edgepack.parity.v1+json"]


def test_a_deploy_adds_another_pipeline_and_replaces_the_same(edgepack, hub, tmp_path):
    first, second, other = (
        small_bundle(tmp_path / "b", name, weight=weight) for name, weight in (("aa", b"1"), ("aa", b"2"), ("bb", b"3"))
    )
    for index in (first, other, second):
        Pusher(hub).publish(index)
    device = hub.device("multi")

    def runs() -> dict[str, str]:
        return {name: each["index"] for name, each in device.get("/api/v1/assignment").json()["pipelines"].items()}

    said(edgepack("deploy", "aa", "--device", "multi", "--version", first.digest, "--json"))
    assert runs() == {"aa": first.digest}
    said(edgepack("deploy", "bb", "--device", device.id, "--json"))
    assert runs() == {"aa": first.digest, "bb": other.digest}
    assert edgepack("deploy", "aa", "--device", "multi")[0] == 0
    assert runs() == {"aa": second.digest, "bb": other.digest}
    said(edgepack("deploy", "aa", "--device", "multi", "--version", version_of(first.digest), "--json"))
    assert runs() == {"aa": first.digest, "bb": other.digest}


def test_two_deploys_at_once_both_count(edgepack, hub, tmp_path):
    from edgepack.commands._hub_client import HubClient
    from edgepack.commands.deploy import _assign

    indexes = [small_bundle(tmp_path / "b", f"race-{number}", weight=bytes([number])) for number in range(4)]
    for index in indexes:
        Pusher(hub).publish(index)
    device = hub.device("racer")
    ready = threading.Barrier(4)

    def deploy(number: int) -> None:
        with HubClient(hub.url, hub.hub.admin_token) as client:
            view = next(each for each in client.pipelines().pipelines if each.pipeline == f"race-{number}")
            ready.wait()
            _assign(client, "racer", view)

    threads = [threading.Thread(target=deploy, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(device.get("/api/v1/assignment").json()["pipelines"]) == 4


def test_what_cannot_be_deployed_is_named(edgepack, hub, tmp_path):
    Pusher(hub).publish(small_bundle(tmp_path / "b", "only-x86", targets=("x86",)))
    hub.device("arm-box", "arm")
    assert "'none' is not published" in one_line(edgepack("deploy", "none", "--device", "arm-box"), 2)
    assert "no version '1.0'" in one_line(edgepack("deploy", "only-x86", "--device", "arm-box", "--version", "1.0"), 2)
    assert "'nobody' is not enrolled" in one_line(edgepack("deploy", "only-x86", "--device", "nobody"), 2)
    assert "no manifest for arm/none" in one_line(edgepack("deploy", "only-x86", "--device", "arm-box"), 2)


def test_tokens_are_made_for_devices_to_join(edgepack, hub):
    made = said(edgepack("devices", "token", "--group", "line-1", "--expires", "30m", "--json"))
    assert made["group"] == "line-1" and made["token"].startswith("join-")
    assert made["expires_at"] == int(hub.clock.now) + 1800
    code, out, err = edgepack("devices", "token")
    assert code == 0 and out.startswith("join-") and "edgepack-agent enrol" in err
    assert "--expires" in one_line(edgepack("devices", "token", "--expires", "soon"), 2)
    assert "expires_s" in one_line(edgepack("devices", "token", "--expires", "400d"), 2)


def test_devices_are_listed_and_revoked(edgepack, hub):
    hub.device("to-go").put(
        "/api/v1/inventory",
        {
            "target": "x86/none",
            "version": "1",
            "sequence": 1,
            "pipelines": {"wine": {"manifest": "m", "state": "failed", "reason": "x"}},
        },
    )
    code, out, _ = edgepack("devices")
    (line,) = [line for line in out.splitlines() if line.startswith("to-go")]
    assert code == 0 and "x86/none" in line and "wine (failed)" in line and "s ago" in line
    assert edgepack("devices", "revoke", "to-go")[0] == 0
    assert "to-go" not in [each["name"] for each in said(edgepack("devices", "--json"))["devices"]]
    assert "'to-go' is not enrolled" in one_line(edgepack("devices", "revoke", "to-go"), 2)


def test_logs_are_printed_paged_and_followed(edgepack, hub, monkeypatch):
    monkeypatch.setattr("edgepack.commands.logs._PAGE", 3)
    monkeypatch.setattr("edgepack.commands.logs._POLL_S", 0.05)
    device = hub.device("logger")
    device.upload(0, segment(0, 8))
    code, out, _ = edgepack("logs", "wine", "--device", "logger")
    assert code == 0 and [json.loads(line)["metadata"]["seq"] for line in out.splitlines()] == list(range(8))
    page = said(edgepack("logs", "--device", "logger", "--limit", "5", "--json"))
    rest = said(edgepack("logs", "--device", "logger", "--after", page["next"], "--json"))
    assert [row["metadata"]["seq"] for row in page["rows"] + rest["rows"]] == list(range(8))
    assert said(edgepack("logs", "--device", "logger", "--request-id", "r-7", "--json"))["rows"][0]["out"] == {
        "label": 7
    }
    assert "'nope' was never published" in one_line(edgepack("logs", "nope"), 2)
    late = threading.Timer(0.3, lambda: device.upload(1, segment(8, 2)))
    late.start()
    code, out, _ = edgepack("logs", "--device", "logger", "--follow", "--limit", "10")
    late.join()
    assert code == 0 and len(out.splitlines()) == 10
    assert "'after'" in one_line(edgepack("logs", "--after", "x"), 2)


def test_logs_of_an_unknown_pipeline_name_those_that_exist(tmp_path, monkeypatch, capsys):
    with contextlib.closing(RunningHub(tmp_path / "hub", Clock())) as own:
        monkeypatch.setenv("EDGEPACK_TOKEN", own.hub.admin_token)

        def logs(*arguments: str) -> tuple[int, str, str]:
            code = run(lambda: program, "edgepack", ["logs", *arguments, "--hub", own.url])
            printed = capsys.readouterr()
            return code, printed.out, printed.err

        assert "nothing is published yet" in one_line(logs("nope"), 2)
        Pusher(own).publish(small_bundle(tmp_path / "b", "silent"))
        own.device().upload(0, segment(0, 2))
        assert "there is 'silent', 'wine'" in one_line(logs("nope", "--follow"), 2)
        assert said(logs("silent", "--json")) == {"rows": [], "next": None}
        assert len(logs("wine")[1].splitlines()) == 2
        asked = own.http.get("/api/v1/logs?pipeline=nope", headers=own.admin)
        assert asked.status_code == 404 and asked.json()["source"] == "hub"


def test_a_hub_that_is_away_is_told_before_its_token_is_missed(edgepack, hub, monkeypatch):
    monkeypatch.delenv("EDGEPACK_TOKEN")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert "did not answer" in one_line(edgepack("devices", "--hub", f"http://127.0.0.1:{port}"), 1)
    assert "no token for hub" in one_line(edgepack("devices"), 2)


def test_https_to_a_hub_without_it_says_so(edgepack, hub):
    said = one_line(edgepack("devices", "--hub", hub.url.replace("http:", "https:")), 2)
    assert "speaks plain http there" in said


def test_a_wrong_token_is_one_line(edgepack, monkeypatch):
    for arguments in (("devices",), ("logs",), ("pipelines",), ("devices", "token"), ("publish", str(EXAMPLE))):
        assert "not the admin token" in one_line(edgepack(*arguments, "--token", "epa_wrong"), 2)


def test_a_hub_that_is_away_is_one_line(edgepack):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for arguments in (("devices",), ("deploy", "a", "--device", "b"), ("publish", str(EXAMPLE))):
        assert "did not answer" in one_line(edgepack(*arguments, "--hub", f"http://127.0.0.1:{port}"), 1)


def test_something_else_than_a_hub_is_one_line(edgepack):
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert "edgepack hub" in one_line(edgepack("devices", "--hub", f"http://127.0.0.1:{server.server_port}"), 1)
        server.shutdown()


@pytest.mark.parametrize(
    "url", ["http://hub.example", "http://192.0.2.1:8090", "ftp://x", "hub", "https://u:p@h", "http://127.0.0.1:x"]
)
def test_a_url_that_would_carry_the_token_in_the_open_is_refused(edgepack, url):
    assert "hub '" in one_line(edgepack("devices", "--hub", url), 2)


def test_urls_of_this_machine_and_https_are_fine():
    for url in ("http://127.0.0.1:8090", "http://localhost:1", "http://[::1]:8090", "https://hub.example"):
        assert checked_url(url + "/") == url


def test_a_login_is_checked_kept_for_its_owner_and_found(edgepack, hub, monkeypatch):
    monkeypatch.delenv("EDGEPACK_TOKEN")
    assert "edgepack login" in one_line(edgepack("devices"), 2)
    assert "not the admin token" in one_line(edgepack("login", "--token", "epa_wrong"), 2)
    assert not logins_path().exists()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{hub.hub.admin_token}\n"))
    assert edgepack("login")[0] == 0 and logins_path().is_file()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "give --token, or the token on standard input" in one_line(edgepack("login"), 2)
    logins_path().unlink()
    code, out, _ = edgepack("login", "--token", hub.hub.admin_token)
    assert code == 0 and hub.hub.admin_token not in out
    assert logins_path().stat().st_mode & 0o777 == 0o600
    assert edgepack("devices")[0] == 0
    assert find_token(hub.url) == hub.hub.admin_token
    logins_path().write_text("{")
    assert "does not read" in one_line(edgepack("devices"), 2)


def test_a_hub_on_this_machine_lets_commands_find_its_token(edgepack, hub, monkeypatch):
    from edgepack.commands._logins import remember_token_file

    monkeypatch.delenv("EDGEPACK_TOKEN")
    remember_token_file(hub.url, hub.hub.token_file)
    assert edgepack("devices")[0] == 0
    assert hub.hub.admin_token not in logins_path().read_text()
    remember_token_file("http://127.0.0.1:2", hub.hub.token_file.with_name("gone"))
    remember_token_file("http://127.0.0.1:3", hub.hub.token_file)
    assert set(json.loads(logins_path().read_text())) == {hub.url, "http://127.0.0.1:3"}
    with pytest.raises(BadInput, match="no token"):
        find_token("http://127.0.0.1:1")


def test_an_image_in_a_hub_is_verified_with_what_the_user_is_logged_in_with(edgepack, hub, tmp_path, monkeypatch):
    from oci.credentials import Bearer
    from oci.registry import Registry

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    host = hub.url.removeprefix("http://")
    with Registry(host, Bearer(hub.hub.admin_token)) as registry:
        registry.push_index("kept", "1", small_bundle(tmp_path / "b", "kept"))
    assert said(edgepack("verify", f"{host}/kept:1", "--json"))["whole"] is True
    monkeypatch.setenv("EDGEPACK_HUB", "http://127.0.0.1:1")  # the token of another hub is not told to this one
    refused = one_line(edgepack("verify", f"{host}/kept:1"), 2)
    assert f"`edgepack login --hub {hub.url} --token T`" in refused and hub.hub.admin_token not in refused
    monkeypatch.delenv("EDGEPACK_TOKEN")
    assert edgepack("login", "--hub", hub.url, "--token", hub.hub.admin_token)[0] == 0
    assert said(edgepack("verify", f"{host}/kept:1", "--json"))["whole"] is True


def test_a_configuration_folder_that_cannot_be_made_does_not_stop_a_hub(monkeypatch, capsys, tmp_path):
    from edgepack.commands._logins import remember_token_file

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file" / "config"))
    remember_token_file("http://127.0.0.1:1", tmp_path / "token")
    assert "EDGEPACK_TOKEN" in capsys.readouterr().err


def test_lengths_of_time_are_read():
    assert [seconds(text) for text in ("90", "90s", "30m", "30min", "24h", "7d")] == [
        90,
        90,
        1800,
        1800,
        86_400,
        604_800,
    ]
    for wrong in ("", "0h", "-1h", "1w", "1.5h", "h"):
        with pytest.raises(BadInput):
            seconds(wrong)


@pytest.mark.parametrize("verb", ["hub", "login", "publish", "pipelines", "devices", "deploy", "logs"])
def test_every_command_has_a_worked_example(edgepack, verb):
    code, out, _ = edgepack(verb, "--help")
    assert code == 0 and "Example:" in out and f"edgepack {verb}" in out


def test_a_hub_that_may_not_be_served_is_one_line(edgepack, hub, tmp_path):
    assert "TLS" in one_line(edgepack("hub", "--host", "0.0.0.0", "--data", str(tmp_path / "h")), 2)
    assert not (tmp_path / "h").exists()
    assert "in use" in one_line(edgepack("hub", "--data", str(hub.config.data)), 2)
    port = hub.url.rpartition(":")[2]
    assert f"port {port}" in one_line(edgepack("hub", "--data", str(tmp_path / "h"), "--port", port), 2)
