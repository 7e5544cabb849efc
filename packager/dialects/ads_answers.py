"""Whose answers the golden rows of an artifact hold: `edgepack.ads` writes the estimator's beside the score.py it made.

Once score.py was edited to answer otherwise, they are no answers of its: the questions stay good. The metadata that
`prepare()` writes has the digests of both files, so that rows and answers of the user's own are told from its.
"""

from __future__ import annotations

import json
from pathlib import Path

from oci.digest import Digest
from packager.dialects.ads_layout import SCORE

METADATA = "model_metadata.json"
DIGESTS = "ArtifactDigests"  # in its `custom`: file → digest, as prepare() wrote it
LARGEST_METADATA = 1 << 20  # bytes


def are_of_other_code(rows: Path) -> bool:
    """Whether golden rows are as `prepare()` wrote them, and score.py beside them no longer is."""
    score, written = rows.with_name(SCORE), _digests(rows.with_name(METADATA))
    if rows.name not in written or SCORE not in written or not score.is_file():
        return False
    is_as_written = Digest.of(rows.read_bytes()) == written[rows.name]
    return is_as_written and Digest.of(score.read_bytes()) != written[SCORE]


def _digests(path: Path) -> dict[str, str]:
    """Those that the metadata has; none where it is not as `prepare()` writes it, which the artifact's checks say."""
    if not path.is_file() or path.stat().st_size > LARGEST_METADATA:
        return {}
    try:
        said = json.loads(path.read_bytes())
        return dict(said["custom"][DIGESTS])
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
