"""All checks at once, each group in a separate process, which may hang or crash."""

import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from edgepose.config.exposure import exposed_secrets
from edgepose.config.loader import find_config_file, load_config
from edgepose.config.schema import Config
from edgepose.diagnostics.report import Check, Report, failed
from edgepose.errors import ConfigError
from edgepose.util.process import exit_description, main_command

TIMEOUT_S: Final = 8.0
"""All checks together end within it, whatever hangs."""

_decode = msgspec.json.Decoder(Check).decode


def run_checks(config_path: Path | None, timeout_s: float = TIMEOUT_S) -> Report:
    """Run every check of a configuration, the default one without a path."""
    path = find_config_file(config_path)
    try:
        config = load_config(path)
    except ConfigError as error:
        remedy = "correct it; `edgepose config sample` prints every key with its meaning"
        reason = "needs a valid configuration"
        checks = [
            Check("config", "error", str(error), remedy),
            *(Check(name, "skipped", reason) for name in ("camera", "model", "broker", "state")),
            *_run([("system", [])], None, timeout_s),
        ]
    else:
        checks = [_config(config, path), *_run(_groups(config), path, timeout_s)]
    return Report(ok=all(check.status != "error" for check in checks), checks=checks)


def _config(config: Config, path: Path | None) -> Check:
    name = str(path or "built-in defaults")
    for warning in exposed_secrets(config, path):
        message, _, remedy = warning.partition("; ")
        return Check("config", "warning", message, remedy)
    return Check("config", "ok", f"{name}: no errors, node {config.node_name}")


def _groups(config: Config) -> list[tuple[str, list[str]]]:
    """Return the groups of checks: the name of a function of the worker, and its arguments."""
    cameras = [("camera", [camera.name]) for camera in config.cameras]
    return [*cameras, ("model", []), ("edgetpu", []), ("broker", []), ("state", []), ("system", [])]


def _run(
    groups: Sequence[tuple[str, list[str]]], path: Path | None, timeout_s: float
) -> Iterator[Check]:
    """Yield the checks of all groups, in their order."""
    deadline = time.monotonic() + timeout_s
    command = main_command("edgepose.diagnostics.worker")
    file = "" if path is None else str(path)
    processes = [
        subprocess.Popen(  # noqa: S603 - our own module
            [*command, group, file, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Its children, such as the worker of the Edge TPU, end with it.
            start_new_session=True,
        )
        for group, arguments in groups
    ]
    pipes = [process.stdout.fileno() for process in processes if process.stdout]
    outputs = _collect(pipes, deadline)
    for (group, arguments), process, output in zip(groups, processes, outputs, strict=True):
        name = " ".join((group, *arguments))
        checks = [_decode(line) for line in output.splitlines(keepends=True) if line[-1:] == b"\n"]
        yield from checks
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # A driver that hangs keeps even a killed process; it is not waited for.
            process.kill()
            yield Check(
                name,
                "error",
                f"did not answer within {timeout_s:g} s",
                "restart the device, or the broker, that it waits for; `dmesg` may name it",
            )
            continue
        if code:
            error = RuntimeError(f"the check {exit_description(code)}")
            yield failed(name, error, "run `edgepose doctor --debug` and report what it prints")


def _collect(descriptors: Sequence[int], deadline: float) -> list[bytes]:
    """Return what each pipe contains until its end, or until the deadline."""
    received = dict.fromkeys(descriptors, b"")
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() and (left_s := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                data = os.read(key.fd, 65536)
                received[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    return list(received.values())
