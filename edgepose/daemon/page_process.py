"""The live page beside the daemon, in a process that takes nothing from the cameras' line."""

import logging
import subprocess
import threading
from pathlib import Path
from typing import Final

import msgspec

from edgepose.config.schema import Config
from edgepose.util.process import exit_description, main_command, tied_command
from edgepose.util.secrets import Secret

log = logging.getLogger(__name__)

RESTART_S: Final = 10.0
STOP_TIMEOUT_S: Final = 2.0


class PageProcess:
    """Runs the page from `start` to `close`, and again 10 s after it has ended.

    A thread waits for the process, so nothing of it concerns the main thread.
    """

    def __init__(self, config: Config) -> None:
        # The page has no client id, so that it is no second client of this one.
        mqtt = msgspec.structs.replace(config.mqtt, client_id=None)
        settings = {"mqtt": mqtt, "dashboard": config.dashboard}
        self._settings = msgspec.json.encode(msgspec.to_builtins(settings, enc_hook=_plain))
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> None:
        """Start the process; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Ask the process to end, and wait for it at most 2 s."""
        self._closing.set()
        process = self._process
        if process is not None:
            process.terminate()
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        logged = False
        while not self._closing.is_set():
            ending = self._serve()
            if not (logged or self._closing.is_set()):
                logged = True
                log.warning(
                    "the dashboard %s; starting it again every %.0f s, and logging no more of it",
                    ending,
                    RESTART_S,
                )
            self._closing.wait(RESTART_S)

    def _serve(self) -> str:
        """Run the process until it ends; return how it ended."""
        try:
            # Tied to this thread, it ends with this process in any case.
            self._process = process = subprocess.Popen(  # noqa: S603 - our own module
                tied_command(main_command("edgepose.dashboard.process")),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                # Ctrl-C must not end it before the daemon has published that it is offline.
                start_new_session=True,
            )
            process.communicate(self._settings)
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        return exit_description(process.returncode)


def _plain(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Path):
        return str(value)
    # As msgspec demands of a hook that does not know a type.
    raise NotImplementedError(type(value))
