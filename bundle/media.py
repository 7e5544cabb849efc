"""Media types and annotation keys of a bundle. ModelPack's weight type is used for model files (CNCF model-spec,
"Media Types").
"""

PIPELINE = (
    "application/vnd.edgepack.pipeline.v1+json"  # artifact type of index and manifests, and media type of the config
)
MODEL = "application/vnd.cncf.model.weight.v1.raw"
WHEEL = "application/vnd.edgepack.wheel.v1+zip"
GOLDEN = "application/vnd.edgepack.golden.v1+json"
PARITY = "application/vnd.edgepack.parity.v1+json"

FILEPATH = "org.cncf.model.filepath"  # on a blob: where the file lies in the bundle's folder
TARGET = "io.edgepack.target"  # on a manifest: `arm/none`
NAME = "io.edgepack.pipeline"  # on a manifest and on the index: the pipeline's name

SPEC_FILE = "pipeline.json"  # the config blob, in an unpacked bundle
GOLDEN_FILE = "golden.json"
MANIFEST_FILE = "manifest.json"  # so that an unpacked bundle can be verified by itself
