"""The machine that a benchmark runs on, its state, and what makes figures unreliable."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from edgepose.benchmark.results import Document, EdgeTpuPort, LatencyRow
from edgepose.monitoring.edgetpu_devices import SLOW_USB_MBIT, find_devices
from edgepose.monitoring.host import OCCURRED, CpuFrequency, MachineState

HOT_C: Final = 80.0
"""From this temperature on a Raspberry Pi's firmware throttles its cores."""
BUSY_LOAD: Final = 0.3
LITTLE_MEMORY_MB: Final = 150.0
LOW_CLOCK: Final = 0.97
"""Share of the clock's limit below which a core is throttled."""

_STEADY_GOVERNOR: Final = "performance"
_FLAGS: Final = {
    "under_voltage": "the supply voltage is too low; use the official supply and a short cable",
    "frequency_capped": "the clock is capped",
    "throttled": "the cores are throttled; cool them",
    "soft_temperature_limit": "the soft temperature limit is in effect; cool the cores",
}


def edge_tpu_ports() -> tuple[EdgeTpuPort, ...]:
    """Return how the Edge TPUs of this machine are connected."""
    return msgspec.convert(find_devices(), tuple[EdgeTpuPort, ...], from_attributes=True)


def warnings(
    before: MachineState,
    after: MachineState,
    edge_tpus: Sequence[EdgeTpuPort] = (),
    latency: Sequence[LatencyRow] = (),
) -> Iterator[str]:
    """Yield what makes the figures unreliable, each with its remedy."""
    measured = [row for row in latency if row.latency_ms is not None]
    unstable = sum(bool(row.unstable) for row in measured)
    if unstable:
        yield (
            f"{unstable} of {len(measured)} rows are unstable (marked ?), another run may give "
            "other medians; stop other processes, let the machine cool down, and run it again"
        )
    yield from _clock_warnings(before, after)
    yield from _throttling_warnings(before, after)
    hottest = max((*before.temperatures_c.values(), *after.temperatures_c.values()), default=0.0)
    if hottest >= HOT_C:
        yield (
            f"{hottest:.0f} °C is hot: a Raspberry Pi slows down from {HOT_C:.0f} °C on; give it a "
            "heat sink or a fan"
        )
    load, memory_mb = before.load_average or 0, before.memory_available_mb or math.inf
    if load > BUSY_LOAD:
        yield f"the load average was {load:.2f} before the benchmark: other processes are running"
    if memory_mb < LITTLE_MEMORY_MB:
        yield f"only {memory_mb:.0f} MB of memory were free: models may have been read again"
    for port in edge_tpus:
        if (port.usb_mbit_per_s or math.inf) <= SLOW_USB_MBIT:
            yield (
                f"an Edge TPU is connected at {port.usb_mbit_per_s} Mbit/s (USB 2), on which "
                "transfers take several times as long as on USB 3; use a blue port and a USB 3 "
                "cable"
            )


def facts(document: Document) -> dict[str, str]:
    """Return what is the same in all runs of one version on one machine, as text."""
    machine = document.machine
    # A container may be given fewer cores than the machine has.
    cores = f"{machine.usable_cores} of {machine.cores} cores"
    found = {
        "edgepose": document.edgepose,
        "runtimes": _joined(*(f"{name} {version}" for name, version in document.runtimes.items())),
        "machine": machine.name,
        "processor": _joined(machine.soc, machine.cpu, cores),
        # Two boards of one kind reserve a few MB more or less.
        "memory": machine.memory_mb and f"{machine.memory_mb / 1000:.1f} GB",
        "system": _joined(machine.os, machine.architecture),
        "kernel": machine.kernel,
        "Python": machine.python,
        "clock": _joined(*dict.fromkeys(map(_clock_text, document.before.frequencies))),
        "throttling": _throttling_text(document.after),
        "Edge TPU": _joined(*map(_port_text, document.edge_tpus)) or "none",
    }
    return {name: text or "unknown" for name, text in found.items()}


def state_text(state: MachineState) -> str:
    """Return clocks, temperatures and throttling flags as text."""
    clocks = [f"{group.mhz:.0f} MHz" for group in state.frequencies if group.mhz is not None]
    if state.firmware_clock_mhz is not None:
        clocks.append(f"{state.firmware_clock_mhz:.0f} MHz by the firmware")
    temperatures = (f"{name} {value:.0f} °C" for name, value in state.temperatures_c.items())
    return _joined(*clocks, *temperatures, f"throttling: {_throttling_text(state)}")


def _clock_warnings(before: MachineState, after: MachineState) -> Iterator[str]:
    for group in before.frequencies:
        if group.governor not in (None, _STEADY_GOVERNOR):
            yield (
                f"the governor of cores {group.cpus} is {group.governor}: the clock follows the "
                "load; until the next boot `echo performance | sudo tee "
                "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor` fixes it"
            )
        if (group.limit_mhz or math.inf) < (group.hardware_mhz or 0):
            yield (
                f"cores {group.cpus} are limited to {group.limit_mhz:.0f} of their "
                f"{group.hardware_mhz:.0f} MHz (scaling_max_freq)"
            )
    for group in after.frequencies:
        clock, limit = after.firmware_clock_mhz or group.mhz or math.inf, group.limit_mhz or 0
        # With another governor an idle core slows down before its clock can be read.
        if group.governor == _STEADY_GOVERNOR and clock < LOW_CLOCK * limit:
            yield (
                f"cores {group.cpus} ran at {clock:.0f} of {limit:.0f} MHz afterwards: the clock "
                "was reduced"
            )


def _throttling_warnings(before: MachineState, after: MachineState) -> Iterator[str]:
    at_first, at_last = set(before.throttling or ()), set(after.throttling or ())
    for flag, meaning in _FLAGS.items():
        if flag in at_first | at_last:
            yield f"figures are too slow: {meaning}"
        elif flag + OCCURRED in at_last - at_first:
            yield f"figures are too slow, at times during the benchmark {meaning}"
        elif flag + OCCURRED in at_last:
            yield f"at times since the machine started, not during the benchmark, {meaning}"


def _throttling_text(state: MachineState) -> str:
    if state.throttling is None:
        return "unknown"
    return _joined(*state.throttling).replace("_", " ") or "none"


def _clock_text(group: CpuFrequency) -> str:
    limit = "?" if group.limit_mhz is None else f"{group.limit_mhz:.0f}"
    return f"{group.governor or 'unknown governor'}, at most {limit} MHz"


def _port_text(port: EdgeTpuPort) -> str:
    return (
        port.bus if port.usb_mbit_per_s is None else f"{port.bus} at {port.usb_mbit_per_s} Mbit/s"
    )


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)
