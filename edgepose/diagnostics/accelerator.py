"""The model on the CPU and on the Edge TPU."""

from collections.abc import Iterator

import numpy as np

from edgepose.build import (
    build_cpu_model,
    build_edgetpu_model,
    build_replay_model,
    edgetpu_accelerator,
    model_files,
)
from edgepose.config.schema import Config
from edgepose.daemon.state_folder import node_folder
from edgepose.diagnostics.report import Check, failed
from edgepose.diagnostics.system import daemon_pid
from edgepose.errors import EdgeposeError, ModelError
from edgepose.inference.thread_cache import ThreadCache
from edgepose.monitoring.edgetpu_devices import SLOW_USB_MBIT, find_devices
from edgepose.protocols import LoadedModel
from edgepose.registry.registry import default_registry
from edgepose.util.process import processes_using

_INSTALL_REMEDY = "choose a model of `edgepose models list`"
_UNPLUG = "plug it in, or set accelerator: cpu"


def check_models(config: Config) -> Iterator[Check]:
    """Load the configured model, run it once, and compare the installed files with their hashes."""
    try:
        if config.accelerator == "replay":
            model = build_replay_model(config)
        else:
            files = model_files(config.model.name)
            if files.cpu is None and config.accelerator != "cpu":
                yield Check("model", "skipped", f"only for the Edge TPU: {files.missing}")
                return
            folder = node_folder(config.state_path, config.node_name)
            model = build_cpu_model(config, files, ThreadCache(folder))
        _invoke(model)
    except EdgeposeError as error:
        yield failed("model", error, _INSTALL_REMEDY)
    else:
        threads = model.threads()
        on = model.device if threads is None else f"{model.device}, with {threads}"
        yield Check("model", "ok", f"{model.name} runs on the {on}")
    registry = default_registry()
    installed = [entry for entry in registry.entries.values() if registry.find(entry)]
    damaged = []
    for entry in installed:
        try:
            registry.verify(entry)
        except ModelError as error:
            damaged.append(failed("model files", error, "install it again", "warning"))
    yield from damaged
    if not damaged:
        yield Check("model files", "ok", f"{len(installed)} installed, all with the right hash")


def check_edgetpu(config: Config) -> Iterator[Check]:
    """Open the Edge TPU and run the model once, if the configuration can use one."""
    devices = find_devices()
    if config.accelerator in ("cpu", "replay"):
        yield Check("edgetpu", "skipped", f"accelerator is {config.accelerator}")
        return
    required = config.accelerator == "edgetpu"
    if not devices and not required:
        yield Check("edgetpu", "skipped", "no Edge TPU is plugged in; the CPU runs the model")
        return
    try:
        files = model_files(config.model.name)
        accelerator = edgetpu_accelerator(config, files)
        if accelerator is None:
            yield failed("edgetpu", ModelError(files.missing), status="warning")
            return
        own = daemon_pid(config)
        if own is not None and processes_using(device.node for device in devices):
            yield Check("edgetpu", "ok", f"in use by edgepose itself (process {own})")
            return
        model = build_edgetpu_model(config, files, accelerator)
        _invoke(model)
        model.interpreter.close()
    except EdgeposeError as error:
        yield failed("edgetpu", error, _UNPLUG, "error" if required else "warning")
        return
    for device in devices:
        if device.usb_mbit_per_s is not None and device.usb_mbit_per_s <= SLOW_USB_MBIT:
            yield Check(
                "edgetpu",
                "warning",
                f"{model.name} runs, over USB 2 ({device.usb_mbit_per_s} Mbit/s)",
                "plug it into a blue USB 3 port, which is several times as fast",
            )
            return
    yield Check("edgetpu", "ok", f"{model.name} runs on the Edge TPU")


def _invoke(model: LoadedModel) -> None:
    tensor = model.interpreter.input
    model.interpreter.invoke(np.zeros(tensor.shape, tensor.dtype))
