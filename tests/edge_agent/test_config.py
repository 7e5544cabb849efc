from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import config
from edge_agent.config import Config
from edgepack.errors import BadInput


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
