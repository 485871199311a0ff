"""Signals from the first moment of a process."""

import os
import signal
import subprocess
import sys

import pytest

from edgepose.daemon.signals import Signals

START = """
import os, signal, sys, types
from edgepose import __main__ as program
from edgepose.daemon import signals
def hold_signals():
    held()
    os.kill(os.getpid(), signal.{name})
held, program.hold_signals = program.hold_signals, hold_signals
def launch(load, config_file):
    with signals.Signals(starting=True) as taken:
        sys.exit(7 if taken.reload_requested else 8)
sys.modules["edgepose.daemon.app"] = types.SimpleNamespace(launch=launch)
sys.argv = ["edgepose", "run"]
program.main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGHUP", 7), ("SIGTERM", 0), ("SIGINT", 0)])
def test_signals_during_the_start_are_kept(name: str, code: int) -> None:
    """SIGHUP in the first half second ended the process, 28 times of 30."""
    done = subprocess.run([sys.executable, "-c", START.format(name=name)], check=False, timeout=60)
    assert done.returncode == code


def test_signals_stop_while_starting_exits_at_once() -> None:
    """Opening an Edge TPU that hangs takes longer than systemd waits."""
    with Signals(starting=True), pytest.raises(SystemExit) as ending:
        os.kill(os.getpid(), signal.SIGTERM)
    assert ending.value.code == 0


def test_signals_are_flags_once_it_runs() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert (signals.stop_requested, signals.reload_requested) == (True, True)
