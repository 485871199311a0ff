"""One group of checks in a child process, which prints each as a line of JSON."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from edgepose.config.loader import load_config
from edgepose.config.schema import Config
from edgepose.diagnostics import accelerator, broker, camera, system
from edgepose.diagnostics.report import Check

GROUPS: Final[Mapping[str, Callable[..., Iterable[Check]]]] = {
    "camera": camera.check_camera,
    "model": accelerator.check_models,
    "edgetpu": accelerator.check_edgetpu,
    "broker": broker.check_broker,
    "state": system.check_state,
    "system": system.check_system,
}


def main() -> None:
    """Run the group that the arguments name: group, configuration file or empty, its arguments."""
    group, file, *arguments = sys.argv[1:]
    config: Config = load_config(Path(file)) if file else Config()
    for check in GROUPS[group](config, *arguments):
        sys.stdout.buffer.write(msgspec.json.encode(check) + b"\n")
        sys.stdout.buffer.flush()
