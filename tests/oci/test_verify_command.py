"""`edgepack verify` as a user meets it: exit code, standard output, one line on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from edgepack.commands import program
from edgepack.launch import run
from oci.layout import write_layout
from oci.tar import write_tar
from tests.oci.conftest import docker_registry
from tests.oci.make_images import TWO, artifact


@pytest.fixture
def verify(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        code = run(lambda: program, "edgepack", ["verify", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(params=["tar", "layout", "registry"])
def sound(request: pytest.FixtureRequest, tmp_path) -> Iterator[str]:
    if request.param == "tar":
        write_tar(TWO, tmp_path / "two.oci.tar")
        yield str(tmp_path / "two.oci.tar")
    elif request.param == "layout":
        write_layout(TWO, tmp_path / "two")
        yield str(tmp_path / "two")
    else:
        with docker_registry(tmp_path) as place, place.client() as registry:
            registry.push_index("verify/two", "v1", TWO)
            yield f"{place.host}/verify/two:v1"


def test_what_is_whole_is_counted(verify, sound):
    code, out, err = verify(sound)
    assert (code, err) == (0, "")
    size = sum(blob.descriptor.size for blob in TWO.blobs())
    assert out.startswith(f"'{sound}' is whole: 2 manifests, 8 blobs, {size} bytes")


def test_json_is_one_object(verify, sound):
    code, out, _ = verify(sound, "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["whole"], said["manifests"], said["blobs"], said["faults"]) == (True, 2, 8, [])


def test_each_damaged_blob_has_its_line(verify, tmp_path):
    layout = write_layout(TWO, tmp_path / "two")
    bad = [TWO.images[number].layers[1].descriptor.digest for number in (0, 1)]
    layout.path(bad[0]).unlink()
    layout.path(bad[1]).write_bytes(b"x")
    code, out, err = verify(tmp_path / "two")
    assert code == 1
    assert [line.partition(": ")[0] for line in out.splitlines()] == bad
    assert bad[0] in err
    assert "and 1 more" in err
    assert len(err.splitlines()) == 1
    code, out, _ = verify(tmp_path / "two", "--json")
    assert code == 1
    assert [fault["digest"] for fault in json.loads(out)["faults"]] == bad


def test_what_is_said_of_an_image_is_counted_and_named_when_it_is_damaged(verify, tmp_path):
    said = artifact(b"what is said", subject=TWO.images[0])
    path = tmp_path / "two.tar"
    write_tar(TWO, path, referrers=[said])
    code, out, _ = verify(path)
    assert code == 0 and "is whole: 3 manifests (1 of them said about others), 11 blobs" in out
    assert json.loads(verify(path, "--json")[1])["referrers"] == 1
    path.write_bytes(path.read_bytes().replace(b"what is said", b"what is sold"))
    code, out, err = verify(path)
    assert code == 1
    assert out.startswith(f"{said.layers[0].descriptor.digest}: is damaged")
    assert said.layers[0].descriptor.digest in err


@pytest.mark.parametrize(
    "what", ["none.tar", "/no/such/folder", "x", "dist/none.oci.tar", "a b/c", "./x/y", "HOST.example/A"]
)
def test_what_is_not_there_is_the_users_to_mend(verify, what):
    code, out, err = verify(what)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_a_file_of_another_kind_and_an_empty_folder_are_the_users_to_mend(verify, tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar")
    (tmp_path / "folder").mkdir()
    for name in ("a.tar", "folder"):
        code, _, err = verify(tmp_path / name)
        assert code == 2
        assert len(err.splitlines()) == 1
