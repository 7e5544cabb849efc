"""`DebianArchive`: a mirror's release, proven before it is believed, and its packages by sha256.

Where the machine names the archive of security updates as well, the newer package of the two is taken.

The chain: InRelease is checked with gpgv against the archive's keys, as apt does; it names the Packages index by
sha256, which names each .deb by sha256. Where gpgv or the keys are missing (not a Debian machine) the first link
cannot be checked: that is said once, and the lock file then holds the digests that were seen.
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from buildx.debian import Package, PackagesIndex
from buildx.fetch import Gone, Wanted, fetch, fetch_all, read_url
from buildx.mirror import Mirror
from buildx.report import Report
from edgepack.errors import BuildFailed, NotTrusted, Unreachable

_GPGV_TIMEOUT_S = 30


class DebianArchive:
    """One mirror, read through a cache folder; `security` gives the archive of a release's updates, if there is one."""

    def __init__(
        self,
        mirror: Mirror,
        cache: Path,
        report: Report,
        *,
        security: Callable[[str], Mirror | None] = lambda release: None,
        gpgv: str | None = shutil.which("gpgv"),
    ) -> None:
        self.mirror = mirror
        self._security = security
        self._cache = cache
        self._report = report
        self._gpgv = gpgv
        self._releases: dict[str, str] = {}
        self._indexes: dict[tuple[str, str], PackagesIndex] = {}

    def index(self, release: str, arch: str) -> PackagesIndex:
        """The index of `main`. Raises NotTrusted when signature or digest are wrong, Unreachable when the mirror is
        away.
        """
        if (release, arch) not in self._indexes:
            found = self._index(self.mirror, release, arch)
            updates = self._security(release)
            self._indexes[release, arch] = (
                found.updated(self._index(updates, f"{release}-security", arch)) if updates else found
            )
        return self._indexes[release, arch]

    def packages(self, packages: Iterable[Package]) -> list[Path]:
        """Fetch packages, those in the cache from there. Raises Gone when the mirror no longer has one."""
        wanted = [
            Wanted(f"{each.archive or self.mirror.uri}/{each.filename}", each.sha256, f"{each.name}.deb")
            for each in packages
        ]
        return fetch_all(wanted, self._cache)

    def _index(self, mirror: Mirror, release: str, arch: str) -> PackagesIndex:
        if release not in self._releases:
            self._report.step(f"reading Debian {release}")
            self._releases[release] = self._release(mirror, release)
        for suffix, unpack in ((".xz", lzma.decompress), (".gz", gzip.decompress)):
            name = f"main/binary-{arch}/Packages{suffix}"
            match = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(name)}$", self._releases[release], re.MULTILINE)
            if match:
                path = self._fetch_index(f"{mirror.uri}/dists/{release}", name, match[1])
                return PackagesIndex(unpack(path.read_bytes()).decode(), mirror.uri)
        raise BuildFailed(f"the Debian mirror has no {arch} packages of release '{release}'")

    def _fetch_index(self, release: str, name: str, sha256: str) -> Path:
        """By digest where the mirror offers that, so that an update of the mirror in between does no harm."""
        folder, leaf = name.rsplit("/", 1)
        try:
            return fetch(Wanted(f"{release}/{folder}/by-hash/SHA256/{sha256}", sha256, leaf), self._cache)
        except Gone:
            return fetch(Wanted(f"{release}/{name}", sha256, leaf), self._cache)

    def _release(self, mirror: Mirror, release: str) -> str:
        """The text of a release file, as far as it is signed."""
        try:
            data = read_url(f"{mirror.uri}/dists/{release}/InRelease")
        except Unreachable as error:
            raise Unreachable(
                f"{error}; a base that edgepack.lock names and the cache holds is built on without a mirror, and so is "
                "one that --base gives"
            ) from error
        if self._gpgv and mirror.keyring.is_file():
            data = _signed_part(self._gpgv, mirror.keyring, data)
        else:
            self._report.notice(
                f"the signature of Debian {release} was not checked: gpgv or '{mirror.keyring}' is missing; "
                "install gpgv and debian-archive-keyring to have it checked"
            )
        text = data.decode("utf-8", "replace")
        if not re.search(r"^Origin: Debian$", text, re.MULTILINE):
            raise NotTrusted(f"the mirror's release '{release}' is not Debian's: its release file names another origin")
        return text


def _signed_part(gpgv: str, keyring: Path, data: bytes) -> bytes:
    """What of a clear-signed file is signed. One good signature is enough, one bad one too many: apt's rule."""
    with tempfile.TemporaryDirectory() as folder:
        signed, body = Path(folder, "InRelease"), Path(folder, "Release")
        signed.write_bytes(data)
        command = [gpgv, "--status-fd", "1", "--keyring", str(keyring), "--output", str(body), str(signed)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GPGV_TIMEOUT_S, check=False)
        good = "[GNUPG:] GOODSIG " in done.stdout and "[GNUPG:] BADSIG " not in done.stdout
        if not good or not body.is_file():
            raise NotTrusted(
                f"the release file of the Debian mirror has no good signature by the keys in '{keyring}': refused"
            )
        return body.read_bytes()
