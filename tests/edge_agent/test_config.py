from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
import requests

from edge_agent import config
from edge_agent.config import Config
from edgepack.errors import BadInput
from oci.layout import write_layout
from tests.edge_agent.real_hub import make_bundle
from tests.edge_agent.test_agent_commands import Running, ask


def test_a_flag_wins_over_the_environment_and_that_over_the_default(tmp_path):
    environment = {"EDGEPACK_DATA": str(tmp_path), "EDGEPACK_PORT": "9000", "EDGEPACK_HOST": "0.0.0.0"}
    made = Config.read(environment, port=9001, hub=None)
    assert (made.data, made.host, made.port, made.hub) == (tmp_path, "0.0.0.0", 9001, None)


@pytest.mark.parametrize(
    ("variable", "text"), [("EDGEPACK_PORT", "http"), ("EDGEPACK_SEAL_S", "-1"), ("EDGEPACK_TRIAL_S", "nan")]
)
def test_a_value_that_does_not_read_names_its_variable(variable, text):
    with pytest.raises(BadInput, match=variable):
        Config.read({variable: text})


def test_an_image_keeps_its_data_in_its_volume_and_anything_else_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "IMAGE_DATA", tmp_path)
    assert Config.read({}).data == tmp_path
    monkeypatch.setattr(config, "IMAGE_DATA", Path("/nonexistent"))
    assert Config.read({}).data.parts[-2:] == ("edgepack", "agent")


UNITS = {"MiB": 1 << 20, "KiB": 1 << 10, "s": 1}


def default_of(text):
    """A default of the documentation's table: `8080`, 64 MiB, 15 s."""
    number, _, unit = text.strip("`").partition(" ")
    return float(number) * UNITS[unit] if unit else number


def test_the_documentation_lists_every_variable_with_its_default():
    text = (Path(__file__).parents[2] / "docs" / "agent-http.md").read_text().partition("## Settings")[2]
    rows = dict(re.findall(r"^\| `(EDGEPACK_\w+)` \| (.*?) ?\|", text.partition("\n## ")[0], re.M))
    assert set(rows) == {variable for variable, _ in config.VARIABLES.values()}
    for name, (variable, kind) in config.VARIABLES.items():
        default = None if name == "data" else getattr(Config(Path()), name)
        expected = "" if default is None else int(default) if kind is bool else default
        told = default_of(rows[variable])
        assert told == expected if isinstance(told, float) else told == str(expected), variable


@pytest.mark.parametrize(("text", "is_on"), [("1", True), ("yes", True), ("0", False), ("False", False)])
def test_a_switch_is_on_or_off(text, is_on):
    assert Config.read({"EDGEPACK_ACCESS_LOG": text}).access_log is is_on


def test_a_word_that_is_no_switch_is_refused_and_names_its_variable():
    with pytest.raises(BadInput, match="EDGEPACK_ACCESS_LOG is 'perhaps': expected 1 or 0"):
        Config.read({"EDGEPACK_ACCESS_LOG": "perhaps"})


def test_serving_alone_keeps_the_limits_and_forgets_the_hub():
    alone = Config.read({"EDGEPACK_HUB": "https://hub", "EDGEPACK_JOIN_TOKEN": "t", "EDGEPACK_QUEUE": "3"}).alone()
    assert (alone.hub, alone.token, alone.queue) == (None, None, 3)


def test_the_limits_of_the_environment_hold_in_the_program(tmp_path):
    write_layout(make_bundle(tmp_path / "b"), tmp_path / "layout")
    limits = {"EDGEPACK_BODY_BYTES": "2000", "EDGEPACK_HEADER_BYTES": "1024"}
    with Running("--bundle", tmp_path / "layout", "--data", tmp_path / "data", **limits) as agent:
        assert ask(agent.url)[0] == 200
        rows = b'[{"x": [1, 2, 3]}]'.ljust(3000)
        status, said = ask(agent.url, rows)
        assert (status, "larger than 2000 bytes" in said["error"]) == (413, True)
        for body, headers in ((gzip.compress(rows), {"Content-Encoding": "gzip"}), (b"[]", {"X-Long": "a" * 1100})):
            answer = requests.post(agent.url + "/infer", data=body, headers=headers, timeout=60)
            assert answer.status_code == 413, answer.text
