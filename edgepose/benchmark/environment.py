"""Under which conditions a benchmark ran, and what of them makes its figures doubtful."""

from collections.abc import Iterator, Sequence
from typing import Final

from edgepose.benchmark.results import EdgeTpuPort, LatencyRow
from edgepose.monitoring.edgetpu_devices import SLOW_USB_MBIT, find_devices
from edgepose.monitoring.host import OCCURRED, Machine, MachineState

HOT_C: Final = 80.0
"""From here on a Raspberry Pi's firmware slows its cores down."""
BUSY_LOAD: Final = 0.3
LITTLE_MEMORY_MB: Final = 150.0

_STEADY_GOVERNOR: Final = "performance"
_FLAGS: Final = {
    "under_voltage": "the supply's voltage is too low",
    "frequency_capped": "the clock is capped",
    "throttled": "the cores are throttled",
    "soft_temperature_limit": "the soft temperature limit is in effect",
}
_SLOW_CLOCK: Final = 0.97


def edge_tpu_ports() -> tuple[EdgeTpuPort, ...]:
    """Return where Edge TPUs are plugged in."""
    return tuple(
        EdgeTpuPort(bus=device.bus, usb_mbit_per_s=device.usb_mbit_per_s)
        for device in find_devices()
    )


def warnings(
    before: MachineState,
    after: MachineState,
    edge_tpus: Sequence[EdgeTpuPort] = (),
    latency: Sequence[LatencyRow] = (),
) -> tuple[str, ...]:
    """Return what makes figures doubtful, one sentence each, with the remedy where there is one."""
    return (
        *_about_rows(latency),
        *_about_clocks(before, after),
        *_about_throttling(before, after),
        *_about_company(before),
        *(
            f"an Edge TPU is connected at {port.usb_mbit_per_s} Mbit/s (USB 2): its tensors take "
            "several times as long as on USB 3; use a blue port and a USB 3 cable"
            for port in edge_tpus
            if port.usb_mbit_per_s is not None and port.usb_mbit_per_s <= SLOW_USB_MBIT
        ),
    )


def described(
    machine: Machine, before: MachineState, after: MachineState, edge_tpus: Sequence[EdgeTpuPort]
) -> tuple[str, ...]:
    """Return the machine and its state in a few lines for people."""
    chip = ", ".join(part for part in (machine.soc, machine.cpu) if part)
    # A container may be given fewer cores than the machine has.
    cores = f"{machine.cores} cores"
    if machine.usable_cores != machine.cores:
        cores += f" ({machine.usable_cores} usable)"
    memory = f"{machine.memory_mb:.0f} MB" if machine.memory_mb is not None else "memory unknown"
    system = ", ".join(
        part
        for part in (
            machine.os,
            machine.kernel and f"kernel {machine.kernel}",
            machine.architecture,
            f"Python {machine.python}",
        )
        if part
    )
    lines = [
        f"machine: {machine.name}" + (f" ({chip})" if chip else "") + f", {cores}, {memory}",
        f"system: {system}",
        f"clock: {_clock(before)}; afterwards {_clock(after)}",
        f"temperature: {_heat(before)}; afterwards {_heat(after)}",
        f"throttling: {_throttled(before)}; afterwards {_throttled(after)}",
    ]
    if edge_tpus:
        lines.append(f"Edge TPU: {', '.join(_port(port) for port in edge_tpus)}")
    return tuple(lines)


def _about_rows(latency: Sequence[LatencyRow]) -> Iterator[str]:
    measured = [row for row in latency if row.latency_ms is not None]
    doubtful = sum(bool(row.doubtful) for row in measured)
    if doubtful:
        yield (
            f"{doubtful} of {len(measured)} rows are doubtful (marked ?): another run may well "
            "give another median; stop what else runs, let the machine cool down, and run it again"
        )


def _about_clocks(before: MachineState, after: MachineState) -> Iterator[str]:
    for group in before.frequencies:
        if group.governor not in (None, _STEADY_GOVERNOR):
            yield (
                f"the governor of cores {group.cpus} is {group.governor}: the clock follows the "
                "load; `echo performance | sudo tee "
                "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor` holds it still until "
                "the next start"
            )
        if (
            group.limit_mhz is not None
            and group.hardware_mhz is not None
            and group.limit_mhz < group.hardware_mhz
        ):
            yield (
                f"cores {group.cpus} are limited to {group.limit_mhz:.0f} of their "
                f"{group.hardware_mhz:.0f} MHz (scaling_max_freq)"
            )
    for group in after.frequencies:
        # Other governors let an idle core slow down before it can be asked.
        if (
            group.governor == _STEADY_GOVERNOR
            and group.limit_mhz is not None
            and (clock := after.firmware_clock_mhz or group.mhz) is not None
            and clock < _SLOW_CLOCK * group.limit_mhz
        ):
            yield (
                f"cores {group.cpus} ran at {clock:.0f} of {group.limit_mhz:.0f} MHz afterwards: "
                "the clock was held back"
            )


def _about_throttling(before: MachineState, after: MachineState) -> Iterator[str]:
    at_first, at_last = set(before.throttling or ()), set(after.throttling or ())
    for flag, meaning in _FLAGS.items():
        if flag in at_first | at_last:
            yield f"{meaning}: these figures are too slow{_remedy(flag)}"
        elif flag + OCCURRED in at_last - at_first:
            yield f"{meaning}, at times while it measured: figures are too slow{_remedy(flag)}"
        elif flag + OCCURRED in at_last:
            yield f"{meaning}, at times since the machine started, not while it measured"
    hottest = max((*before.temperatures_c.values(), *after.temperatures_c.values()), default=0.0)
    if hottest >= HOT_C:
        yield (
            f"{hottest:.0f} °C is hot: a Raspberry Pi slows down from {HOT_C:.0f} °C on; give it a "
            "heat sink or a fan"
        )


def _about_company(before: MachineState) -> Iterator[str]:
    if before.load_average is not None and before.load_average > BUSY_LOAD:
        yield (
            f"the load average was {before.load_average:.2f} before it began: something else runs "
            "on this machine"
        )
    if before.memory_available_mb is not None and before.memory_available_mb < LITTLE_MEMORY_MB:
        yield (
            f"only {before.memory_available_mb:.0f} MB of memory were free: models may have been "
            "pushed out of it and read again"
        )


def _remedy(flag: str) -> str:
    if flag == "under_voltage":
        return "; use the official power supply and a short cable"
    if flag in ("throttled", "soft_temperature_limit"):
        return "; cool it"
    return ""


def _clock(state: MachineState) -> str:
    groups = [
        f"{group.governor or 'unknown governor'} {_mhz(group.mhz)} of {_mhz(group.limit_mhz)} MHz"
        for group in state.frequencies
    ]
    if state.firmware_clock_mhz is not None:
        groups.append(f"firmware says {state.firmware_clock_mhz:.0f} MHz")
    return ", ".join(groups) or "not told here"


def _mhz(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


def _heat(state: MachineState) -> str:
    return ", ".join(f"{k} {v:.0f} °C" for k, v in state.temperatures_c.items()) or "not told here"


def _throttled(state: MachineState) -> str:
    if state.throttling is None:
        return "not told here"
    return ", ".join(flag.replace("_", " ") for flag in state.throttling) or "none"


def _port(port: EdgeTpuPort) -> str:
    speed = f" at {port.usb_mbit_per_s} Mbit/s" if port.usb_mbit_per_s else ""
    return f"{port.bus}{speed}"
