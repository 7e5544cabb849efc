"""What a build is asked for, and the machine that it runs on: plain values, made once by a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from buildx.mirror import APT
from oci.credentials import Credentials
from oci.docker_config import find_credentials

FindCredentials = Callable[[str], "Credentials | None"]


@dataclass(frozen=True)
class Options:
    """What a user asks for. `project` is the folder that the lock lies in, `source` what `created` looks at in git.

    `reference` is what the output is called, by default by pipeline and target. Without `keep_file` and `output` no
    file is written. Without `bytecode` no `.pyc` is made (benchmarks alone ask for that).
    """

    project: Path
    source: Path
    output: Path | None = None
    base: str | None = None
    wheels: Path | None = None
    compression: str = "splice"
    locked: bool = False
    layer_cache: bool = True
    builder: str = "direct"
    reference: str | None = None
    keep_file: bool = True
    bytecode: bool = True
    plain_http: bool = False

    @property
    def layer_compression(self) -> str:
        """How our own layers are packed: for docker, which packs them again, in the way that costs least."""
        return self.compression if self.builder == "direct" else "splice"


@dataclass(frozen=True)
class Workplace:
    """This machine: the cache folder, the environment that names mirror and time, apt's configuration, and the folders
    with target files of the user's own. `terminal` says that docker may draw its progress on standard error.

    `credentials` finds what to tell the registry of a base, by its host; by default what the user's docker keeps.
    """

    cache: Path
    environ: Mapping[str, str]
    apt: Path = APT
    targets: tuple[Path, ...] = ()
    terminal: bool = False
    credentials: FindCredentials | None = None

    def credentials_for(self, host: str) -> Credentials | None:
        """What to tell a registry. Raises BadInput for a login that does not read."""
        return self.credentials(host) if self.credentials else find_credentials(host, self.environ)
