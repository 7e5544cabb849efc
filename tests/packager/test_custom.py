"""Finding the Inference and the InferenceBuilder of a BYOP upload by parsing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.errors import BadInput
from packager.frameworks import custom
from packager.frameworks.sources import sources_of
from tests.packager.test_python_step import GOOD, upload

CODE = """
from mac.config.inference import CustomInferenceConfig
from mac.inference import Inference
from mac.inference.creation import InferenceBuilder
from mac.types import InferenceData
from sklearn.cluster import KMeans

raise SystemExit("a packager that imports this ends here")

class Clusters(Inference):
    @property
    def expected_model_types(self):
        return {KMeans}

    @Inference.model.setter
    def model(self, model) -> None:
        self._raise_error_if_model_is_wrong_type(model)
        self._model = model

    def _predict(self, input_data: InferenceData) -> InferenceData:
        return {"cluster": self.model.predict(input_data["x"])}

class ClustersBuilder(InferenceBuilder):
    @property
    def inference(self) -> Clusters:
        return Clusters

    def create(self, config: CustomInferenceConfig) -> Clusters:
        return self.inference()
"""


def test_the_builder_is_found_and_nothing_is_executed(tmp_path: Path) -> None:
    found = custom.inspect(upload(tmp_path, clusters=CODE))
    assert (found.path, found.name) == ("clusters.py", "ClustersBuilder")


def test_classes_may_stand_in_files_of_their_own_and_inherit_through_others(tmp_path: Path) -> None:
    builder = CODE[CODE.index("class ClustersBuilder") :]
    shared = CODE[: CODE.index("class ClustersBuilder")].replace("class Clusters(", "class Shared(")
    tree = upload(
        tmp_path,
        shared=shared,
        parts__clusters="import shared\nclass Clusters(shared.Shared):\n    pass\n",
        build="import mac.inference.creation as made\nfrom parts.clusters import Clusters\n"
        + builder.replace("(InferenceBuilder)", "(made.InferenceBuilder)").replace("CustomInferenceConfig", "object"),
    )
    assert custom.inspect(tree).path == "build.py"


def test_an_inherited_or_attribute_member_counts(tmp_path: Path) -> None:
    text = CODE.replace(
        "    @property\n    def inference(self) -> Clusters:\n        return Clusters\n", "    inference = Clusters\n"
    )
    assert custom.inspect(upload(tmp_path, clusters=text)).name == "ClustersBuilder"


@pytest.mark.parametrize(
    "old, new, word",
    [
        ("(InferenceBuilder)", "", "no class that extends InferenceBuilder"),
        ("class Clusters(Inference)", "class Clusters", "no class that extends Inference of mac.inference"),
        ("class ClustersBuilder", "class Second(Inference): ...\nclass ClustersBuilder", "2 classes that extend Infer"),
        ("class ClustersBuilder", "class Second(InferenceBuilder): ...\nclass ClustersBuilder", "'Second' in .* and"),
        ("def expected_model_types", "def model_types", "'Clusters' in clusters.py:10 lacks `expected_model_types`"),
        ("def _predict", "def answer", "lacks `_predict"),
        ("def create", "def make", "'ClustersBuilder' .* lacks `create`"),
        ("def inference(self)", "def made(self)", "lacks `inference`"),
        ("from mac.inference import", "from elsewhere import", "no class that extends Inference"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, old: str, new: str, word: str) -> None:
    assert old in CODE
    with pytest.raises(BadInput, match=word) as error:
        custom.inspect(upload(tmp_path, clusters=CODE.replace(old, new)))
    assert len(str(error.value).splitlines()) == 1


def test_classes_that_inherit_from_each_other_in_a_circle_end_the_search(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no class that extends"):
        custom.inspect(upload(tmp_path, a="class A(B): ...\nclass B(A): ...\n"))


def test_the_two_kinds_of_upload_are_told_apart(tmp_path: Path) -> None:
    step, byop = sources_of(upload(tmp_path / "1", a=GOOD)), sources_of(upload(tmp_path / "2", a=CODE))
    assert not custom.is_custom(step) and custom.is_custom(byop)
