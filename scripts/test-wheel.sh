#!/bin/sh
# Builds the wheel, installs it in a clean environment beside the library `arch`, and builds the example from there:
# both `arch` must work, and the image must have the digest that the checkout gives it.
set -eu
cd "$(dirname "$0")/.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
minor=$(.venv/bin/python -c 'import sys; print("%d%d" % sys.version_info[:2])')
sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' "locks/py$minor.txt" > "$place/constraints.txt"

.venv/bin/hatchling build -t wheel -d "$place" >/dev/null 2>&1
.venv/bin/python -m venv "$place/clean"
echo "wheel: installing $(cd "$place" && ls edgepack-*.whl) and the library arch in a clean environment"
"$place/clean/bin/pip" install -qq --disable-pip-version-check -c "$place/constraints.txt" \
    "edgepack[packager,hub] @ file://$(ls "$place"/edgepack-*.whl)" arch

for way in checkout wheel; do
    mkdir "$place/$way"
    cp -r examples/wine-line "$place/$way/"
done
"$PWD/.venv/bin/edgepack" build "$place/checkout/wine-line" --arch x86 --arch arm -o "$place/checkout.oci.tar" --json > "$place/checkout.json"
cd "$place"
unset PYTHONPATH || true
clean/bin/edgepack build wheel/wine-line --arch x86 --arch arm --no-layer-cache -o wheel.oci.tar --json > wheel.json
clean/bin/edgepack verify wheel.oci.tar
clean/bin/python - <<'END'
import json
import arch
from arch import arch_model  # the library, not a room of ours

import edgepack

assert "edgepack" not in (arch.__file__ or ""), arch.__file__
assert arch_model is not None and edgepack.__version__
ours, theirs = (json.load(open(f"{way}.json"))["digest"] for way in ("checkout", "wheel"))
assert ours == theirs, f"the checkout gives {ours}, the wheel {theirs}"
print(f"wheel: beside arch {arch.__version__}; image digest from checkout and wheel {ours}")
END
