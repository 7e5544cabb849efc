"""Small real parts made in code: wheels, .debs, a mirror in a folder, a bundle, a base."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

from arch.target import Target, plain_targets
from buildx.entries import Entry, file
from buildx.requirements import agent_requirements
from buildx.splice import Stored, write_layer
from bundle.bundle import pack
from bundle.pipeline import PipelineSpec, StepSpec
from oci.blob import BytesBlob, FileBlob
from oci.descriptor import Descriptor, PlatformField
from oci.image import IMAGE_CONFIG, Image, Index
from oci.layout import write_layout


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    files: dict[str, bytes] | None = None,
    tag: str = "py3-none-any",
    requires: tuple[str, ...] = (),
) -> Path:
    """A wheel of one module, or of the files given; the same bytes each time. `requires` are lines of its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.replace("-", "_")
    contents = files if files is not None else {f"{stem}.py": b"x = 1\n"}
    info = f"{stem}-{version}.dist-info"
    contents = {
        **contents,
        f"{info}/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *requires, ""]
        ).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{info}/RECORD": b"",
    }
    path = folder / f"{stem}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, data in contents.items():
            archive.writestr(zipfile.ZipInfo(inside), data, zipfile.ZIP_DEFLATED)
    return path


def agent_wheels(folder: Path) -> Path:
    """A stand-in for every package that the agent requires, so that uv resolves without an index."""
    for line in agent_requirements():
        name, _, version = line.partition(";")[0].partition(">=")
        make_wheel(folder, name, f"{version}.0")
    return folder


def make_deb(
    path: Path, name: str, version: str, files: dict[str, bytes | str], depends: str = "", packing: str = "xz"
) -> dict[str, str | int]:
    """A .deb; a text among `files` is the target of a link, `folder/` a folder. Returns its stanza's fields."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
    data = _tar({f"./{inside}": content for inside, content in files.items()})
    pack_ = {"xz": lzma.compress, "gz": gzip.compress, "none": bytes}[packing]
    suffix = "" if packing == "none" else f".{packing}"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(_tar({"./control": control.encode()})),
        f"data.tar{suffix}": pack_(data),
    }
    out = b"!<arch>\n"
    for member, content in members.items():
        out += (
            f"{member:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out)
    return {
        "Package": name,
        "Version": version,
        "Depends": depends,
        "Size": len(out),
        "SHA256": hashlib.sha256(out).hexdigest(),
    }


def _tar(files: dict[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size, member.mode = len(content), 0o755 if b"ELF" in content else 0o644
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) and member.size else None)
    return out.getvalue()


BASE_PACKAGES = (
    "python3.11-minimal",
    "libpython3.11-stdlib",
    "libstdc++6",
    "libgcc-s1",
    "zlib1g",
    "ca-certificates",
    "tzdata",
    "base-files",
    "netbase",
)


def make_mirror(folder: Path, version: str = "1.0-1", arch: str = "amd64", release: str = "bookworm") -> Path:
    """A mirror with a package of each name that a base asks for; a second call with another version replaces them."""
    stanzas = []
    for name in BASE_PACKAGES:
        filename = f"pool/{name}_{version}.deb"
        for old in (folder / "pool").glob(f"{name}_*.deb"):
            old.unlink()
        fields = make_deb(folder / filename, name, version, {f"usr/share/{name}/a": version.encode()})
        stanzas.append("".join(f"{key}: {text}\n" for key, text in fields.items() if text) + f"Filename: {filename}\n")
    write_release(folder, stanzas, arch, release)
    return folder


def write_release(folder: Path, stanzas: list[str], arch: str = "amd64", release: str = "bookworm") -> None:
    """The index of a mirror, and the release file that names it; nobody signs it."""
    packed = gzip.compress("\n".join(stanzas).encode(), mtime=0)
    leaf = f"main/binary-{arch}/Packages.gz"
    index = folder / "dists" / release / leaf
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    (folder / "dists" / release / "InRelease").write_text(f"Origin: Debian\nSHA256:\n {digest} {len(packed)} {leaf}\n")


def make_bundle(folder: Path, name: str = "tiny", model: bytes = b"weights" * 1000, *more: Target) -> Index:
    """A bundle for the plain targets and more. Its model is none: nothing here runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "m.onnx").write_bytes(model)
    field = {"x": "list<float32>[2]"}
    step = StepSpec(name=name, model="m.onnx", framework="onnx", runtime="onnx", input=field, output=field)
    return pack(
        PipelineSpec(name=name, steps=[step]), {"m.onnx": folder / "m.onnx"}, b"[]\n", [*plain_targets(), *more]
    )


def make_base(folder: Path, python: str = "usr/bin/python3.11", entries: tuple[Entry, ...] = ()) -> Path:
    """An OCI layout with one image a platform, each of one layer with a file where Python should be."""
    folder.mkdir(parents=True, exist_ok=True)
    made = write_layer([file(python, b"\x7fELF"), *entries], folder.parent / f"{folder.name}.layer", Stored())
    blob = FileBlob(made.path, Descriptor(made.media_type, made.digest, made.size))
    images = []
    for architecture, variant in (("amd64", None), ("arm64", "v8")):
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/opt/bin", "FROM_BASE=1"]},
            "rootfs": {"type": "layers", "diff_ids": [made.diff_id]},
            "history": [{"created_by": "theirs"}],
        }
        platform = PlatformField(architecture, "linux", variant)
        images.append(Image(BytesBlob.of(json.dumps(config).encode(), IMAGE_CONFIG), (blob,), platform=platform))
    write_layout(Index(tuple(images)), folder)
    return folder
