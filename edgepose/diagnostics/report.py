"""What a check found."""

from collections.abc import Sequence
from typing import Literal

import msgspec

Status = Literal["ok", "warning", "error", "skipped"]


class Check(msgspec.Struct, frozen=True):
    """One check: `error` if the configured pipeline cannot run, and the remedy unless it is ok."""

    name: str
    status: Status
    message: str
    remedy: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """All checks, as `edgepose doctor --format json` prints them."""

    schema: int = 1
    ok: bool
    checks: Sequence[Check]


def failed(name: str, error: Exception, remedy: str = "", status: Status = "error") -> Check:
    """Return the check of an error, whose text is what happened, then `; `, then what to do."""
    message, _, rest = str(error).partition("; ")
    return Check(name, status, message, rest or remedy)
