"""The five error families. Each tells the one who catches it something different to do.

    EdgepackError
      BadInput        the user can mend it: model, pipeline, target, configuration
      BuildFailed     the image writer or docker buildx could not finish
      NotTrusted      digest, signature or version refused; never retried
      Unreachable     hub, registry or mirror did not answer; retried with back-off
      RuntimeFailed   an engine could not load or infer; the device keeps the last good bundle

One message is one line: what happened, to which thing, what was expected, what to do next.
"""

from __future__ import annotations


class EdgepackError(Exception):
    """The root of all errors that edgepack raises on purpose; `exit_code` is what a command ends with."""

    exit_code = 1


class BadInput(EdgepackError):
    """The user can mend it. `field` names the part of a request or file that is at fault, where there is one."""

    exit_code = 2

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BuildFailed(EdgepackError):
    """An image could not be finished."""


class NotTrusted(EdgepackError):
    """A digest, signature or version was refused. Trying again cannot help."""


class Unreachable(EdgepackError):
    """The other side did not answer. Trying again later may help; `retry_after_s` where it said when."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RuntimeFailed(EdgepackError):
    """An engine could not load a model or gave up on a request."""
