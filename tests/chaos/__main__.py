"""`python -m tests.chaos`: inject faults into a real daemon and print a table of the results.

Exit code 1 if a fault was not survived, a message was lost or a target was missed.
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

from tests.chaos import (
    broker_faults,
    camera_faults,
    edgetpu_faults,
    endurance,
    machine_faults,
    output_faults,
    packet_faults,
    service_faults,
    source_faults,
)
from tests.chaos.judge import Row, table
from tests.chaos.observer import WaitTimeoutError
from tests.chaos.registry import FAULTS, OPTIONS, Fault, UnavailableError
from tests.chaos.rig import NAMESPACE_VARIABLE

PARTS: Final = (
    edgetpu_faults,
    camera_faults,
    source_faults,
    broker_faults,
    packet_faults,
    service_faults,
    machine_faults,
    output_faults,
    endurance,
)
"""The modules with faults, in the order of the table."""


def main(arguments: Sequence[str]) -> int:
    """Run the chosen faults and return the exit code."""
    parser = argparse.ArgumentParser("make chaos", description=__doc__)
    parser.add_argument(
        "faults", nargs="*", metavar="FAULT", help="names of faults; all by default"
    )
    parser.add_argument("--list", action="store_true", help="only print their names")
    parser.add_argument("--hour", action="store_true", help="also the hour of video, which is long")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=OPTIONS.seed, help="random seed (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs and files there")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.faults if name not in FAULTS]
    if unknown:
        parser.error(f"no such fault: {', '.join(unknown)}; see --list")
    if options.list:
        for fault in FAULTS.values():
            _print(f"{fault.name:22} {fault.title}")
        return 0
    _enter_namespaces(arguments)
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
            rows = list(pool.map(lambda fault: run_fault(fault, folder), chosen))
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
        f"{len(rows) - len(failed) - skipped} faults passed, {len(failed)} failed, "
        f"{skipped} skipped; {time.monotonic() - started:.0f} s"
    )
    return 1 if failed else 0


def run_fault(fault: Fault, folder: Path) -> Row:
    """Run a fault in its own folder and return its row, also if it raised."""
    row = Row(fault.name, fault.title)
    own = folder / fault.name
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    started = time.monotonic()
    try:
        fault.run(own, row)
    except UnavailableError as error:
        row.skipped = str(error)
    except (WaitTimeoutError, pytest.fail.Exception, pytest.skip.Exception) as error:
        row.survived = False
        row.failures.append(str(error))
    except Exception as error:  # noqa: BLE001 - one broken fault must not hide others
        row.survived = False
        row.failures.append(f"{type(error).__name__}: {error}")
    result = row.skipped or "; ".join(row.failures) or "passed"
    _print(f"{fault.name:22} {time.monotonic() - started:5.1f} s  {result}")
    return row


def _enter_namespaces(arguments: Sequence[str]) -> None:
    """Execute this program again as root of new network and mount namespaces."""
    if NAMESPACE_VARIABLE in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "--net"]
    able = shutil.which("unshare") and shutil.which("ip")
    if not able or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        _print("no network and mount namespaces available: faults that need them are skipped")
        return
    os.environ[NAMESPACE_VARIABLE] = "1"
    os.execvp(unshare[0], [*unshare, "--", sys.executable, "-m", "tests.chaos", *arguments])


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command line program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
