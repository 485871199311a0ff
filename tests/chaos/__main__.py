"""`python -m tests.chaos`: every fault against a real daemon, and a table of what became of it.

Exit code 1 where a fault was not survived, something was lost or a target was missed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.chaos import broker_faults, camera_faults, edgetpu_faults, endurance, machine_faults
from tests.chaos.judge import Row, table
from tests.chaos.observer import MissedError
from tests.chaos.registry import FAULTS, OPTIONS, Fault, NotHereError
from tests.chaos.stage import INSIDE

PARTS: Final = (edgetpu_faults, camera_faults, broker_faults, machine_faults, endurance)
"""What fills the registry, in the order of the table."""


def main(arguments: Sequence[str]) -> int:
    """Try the faults that were asked for."""
    parser = argparse.ArgumentParser("make chaos", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="which ones; all if none")
    parser.add_argument("--list", action="store_true", help="only print their names")
    parser.add_argument("--hour", action="store_true", help="with the hour of video, which is long")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=OPTIONS.seed, help="for chance (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs and files there")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.faults if name not in FAULTS]
    if unknown:
        parser.error(f"no such fault: {', '.join(unknown)}; see --list")
    if options.list:
        for fault in FAULTS.values():
            _print(f"{fault.name:22} {fault.title}")
        return 0
    _enter_own_network(arguments)
    order = [part.__name__ for part in PARTS]
    chosen = [
        fault
        for fault in sorted(FAULTS.values(), key=lambda fault: order.index(fault.run.__module__))
        if fault.name in options.faults or (not options.faults and (options.hour or not fault.long))
    ]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgepose-chaos-") as temporary:
        folder = options.keep or Path(temporary)
        with ThreadPoolExecutor(options.jobs) as pool:
            rows = list(pool.map(lambda fault: tried(fault, folder), chosen))
    text = table(rows)
    _print(f"\n{text}")
    for row in rows:
        for remark in row.remarks:
            _print(f"{row.name}: {remark}")
    if options.markdown is not None:
        options.markdown.write_text(text)
    failed = [row for row in rows if row.failures]
    skipped = sum(row.skipped is not None for row in rows)
    _print(
        f"{len(rows) - len(failed) - skipped} faults as they must be, {len(failed)} not, "
        f"{skipped} not tried; {time.monotonic() - started:.0f} s"
    )
    return 1 if failed else 0


def tried(fault: Fault, folder: Path) -> Row:
    """Try a fault and return what became of it, whatever that is."""
    row = Row(fault.name, fault.title)
    own = folder / fault.name
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    started = time.monotonic()
    try:
        fault.run(own, row)
    except NotHereError as error:
        row.skipped = str(error)
    except (MissedError, pytest.fail.Exception, pytest.skip.Exception) as error:
        row.survived = False
        row.failures.append(str(error))
    except Exception as error:  # noqa: BLE001 - one fault that cannot be tried must not hide others
        row.survived = False
        row.failures.append(f"{type(error).__name__}: {error}")
    said = row.skipped or "; ".join(row.failures) or "as it must be"
    _print(f"{fault.name:22} {time.monotonic() - started:5.1f} s  {said}")
    return row


def _enter_own_network(arguments: Sequence[str]) -> None:
    """Start again with a network and mounts of our own, root there, so that none is disturbed."""
    if INSIDE in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "--net"]
    able = shutil.which("unshare") and shutil.which("ip")
    if not able or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        _print("no namespaces of our own here: what needs them is not tried")
        return
    os.environ[INSIDE] = "1"
    os.execvp(unshare[0], [*unshare, "--", sys.executable, "-m", "tests.chaos", *arguments])


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - printing is what it is for


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
