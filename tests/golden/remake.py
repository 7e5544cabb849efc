"""Makes the golden files anew; see README.md."""

from __future__ import annotations

import tempfile
from pathlib import Path

from arch.target import Target
from bundle.bundle import pack
from bundle.pipeline import LogPolicy, PipelineSpec, StepSpec
from oci.digest import Digest

FOLDER = Path(__file__).parent / "bundle"


def documents(work: Path) -> dict[str, bytes]:
    """The documents by file name. The model is a few letters: a bundle does not care what its files hold."""
    model = work / "model.onnx"
    model.write_bytes(b"not a model")
    step = StepSpec(
        name="fraud",
        model="models/fraud/model.onnx",
        framework="onnx",
        runtime="onnx",
        input={"tensor": "list<float32>[29]"},
        output={"dense_1": "list<float32>[1]"},
        tensor_fields=["tensor"],
        sha256=Digest.of(b"not a model").hex,
    )
    spec = PipelineSpec(
        name="fraud",
        steps=[step],
        validations={"high_fraud": "out.dense_1[0] > 0.9"},
        log=LogPolicy(durability="relaxed"),
    )
    golden = b'[\n{"in.tensor":[0.0],"out.dense_1":[0.5]}\n]\n'
    index = pack(spec, {step.model: model}, golden, [Target("x86"), Target("arm")])
    return {
        "pipeline.json": spec.encode(),
        "manifest.json": index.images[0].manifest.data,
        "index.json": index.manifest.data,
    }


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for name, data in documents(Path(work)).items():
            (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
