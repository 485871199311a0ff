"""The machine that a benchmark runs on, its state, and what makes figures unreliable."""

from collections.abc import Iterator, Sequence
from typing import Final

from edgepose.benchmark.results import EdgeTpuPort, LatencyRow
from edgepose.monitoring.edgetpu_devices import SLOW_USB_MBIT, find_devices
from edgepose.monitoring.host import OCCURRED, Machine, MachineState

HOT_C: Final = 80.0
"""From this temperature on a Raspberry Pi's firmware throttles its cores."""
BUSY_LOAD: Final = 0.3
LITTLE_MEMORY_MB: Final = 150.0
LOW_CLOCK: Final = 0.97
"""Share of the clock's limit below which a core is throttled."""

_STEADY_GOVERNOR: Final = "performance"
_FLAGS: Final = {
    "under_voltage": (
        "the supply voltage is too low",
        "; use the official power supply and a short cable",
    ),
    "frequency_capped": ("the clock is capped", ""),
    "throttled": ("the cores are throttled", "; cool it"),
    "soft_temperature_limit": ("the soft temperature limit is in effect", "; cool it"),
}
_UNKNOWN: Final = "unknown"


def edge_tpu_ports() -> tuple[EdgeTpuPort, ...]:
    """Return how the Edge TPUs of this machine are connected."""
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
    """Return what makes the figures unreliable, each with its remedy."""
    return (
        *_row_warnings(latency),
        *_clock_warnings(before, after),
        *_throttling_warnings(before, after),
        *_load_warnings(before),
        *(
            f"an Edge TPU is connected at {port.usb_mbit_per_s} Mbit/s (USB 2), on which transfers "
            "take several times as long as on USB 3; use a blue port and a USB 3 cable"
            for port in edge_tpus
            if port.usb_mbit_per_s is not None and port.usb_mbit_per_s <= SLOW_USB_MBIT
        ),
    )


def described(
    machine: Machine, before: MachineState, after: MachineState, edge_tpus: Sequence[EdgeTpuPort]
) -> tuple[str, ...]:
    """Return the machine and its state as lines of text."""
    chip = _joined(machine.soc, machine.cpu)
    name = f"{machine.name} ({chip})" if chip else machine.name
    # A container may be given fewer cores than the machine has.
    usable = f" ({machine.usable_cores} usable)" if machine.usable_cores != machine.cores else ""
    memory = "memory unknown" if machine.memory_mb is None else f"{machine.memory_mb:.0f} MB"
    kernel = machine.kernel and f"kernel {machine.kernel}"
    system = _joined(machine.os, kernel, machine.architecture, f"Python {machine.python}")
    return (
        f"machine: {name}, {machine.cores} cores{usable}, {memory}",
        f"system: {system}",
        f"clock: {_clock(before)}; afterwards {_clock(after)}",
        f"temperature: {_temperature(before)}; afterwards {_temperature(after)}",
        f"throttling: {throttling_text(before)}; afterwards {throttling_text(after)}",
        *([f"Edge TPU: {ports_text(edge_tpus)}"] if edge_tpus else []),
    )


def ports_text(edge_tpus: Sequence[EdgeTpuPort]) -> str:
    """Return how Edge TPUs are connected as text."""
    speeds = (f" at {p.usb_mbit_per_s} Mbit/s" if p.usb_mbit_per_s else "" for p in edge_tpus)
    return _joined(*(p.bus + speed for p, speed in zip(edge_tpus, speeds, strict=True))) or "none"


def throttling_text(state: MachineState) -> str:
    """Return the throttling flags as text."""
    if state.throttling is None:
        return _UNKNOWN
    return _joined(*state.throttling).replace("_", " ") or "none"


def _row_warnings(latency: Sequence[LatencyRow]) -> Iterator[str]:
    measured = [row for row in latency if row.latency_ms is not None]
    unstable = sum(bool(row.unstable) for row in measured)
    if unstable:
        yield (
            f"{unstable} of {len(measured)} rows are unstable (marked ?), another run may give "
            "other medians; stop other processes, let the machine cool down, and run it again"
        )


def _clock_warnings(before: MachineState, after: MachineState) -> Iterator[str]:
    for group in before.frequencies:
        if group.governor not in (None, _STEADY_GOVERNOR):
            yield (
                f"the governor of cores {group.cpus} is {group.governor}: the clock follows the "
                "load; `echo performance | sudo tee "
                "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor` fixes it until the next "
                "boot"
            )
        limit, hardware = group.limit_mhz, group.hardware_mhz
        if limit is not None and hardware is not None and limit < hardware:
            yield (
                f"cores {group.cpus} are limited to {limit:.0f} of their {hardware:.0f} MHz "
                "(scaling_max_freq)"
            )
    for group in after.frequencies:
        # With another governor an idle core slows down before its clock can be read.
        clock = after.firmware_clock_mhz or group.mhz
        if (
            group.governor == _STEADY_GOVERNOR
            and group.limit_mhz is not None
            and clock is not None
            and clock < LOW_CLOCK * group.limit_mhz
        ):
            yield (
                f"cores {group.cpus} ran at {clock:.0f} of {group.limit_mhz:.0f} MHz afterwards: "
                "the clock was reduced"
            )


def _throttling_warnings(before: MachineState, after: MachineState) -> Iterator[str]:
    at_first, at_last = set(before.throttling or ()), set(after.throttling or ())
    for flag, (meaning, remedy) in _FLAGS.items():
        if flag in at_first | at_last:
            yield f"{meaning}: these figures are too slow{remedy}"
        elif flag + OCCURRED in at_last - at_first:
            yield f"{meaning}, at times during the benchmark: figures are too slow{remedy}"
        elif flag + OCCURRED in at_last:
            yield f"{meaning}, at times since the machine started, not during the benchmark"
    hottest = max((*before.temperatures_c.values(), *after.temperatures_c.values()), default=0.0)
    if hottest >= HOT_C:
        yield (
            f"{hottest:.0f} °C is hot: a Raspberry Pi slows down from {HOT_C:.0f} °C on; give it a "
            "heat sink or a fan"
        )


def _load_warnings(before: MachineState) -> Iterator[str]:
    if before.load_average is not None and before.load_average > BUSY_LOAD:
        yield (
            f"the load average was {before.load_average:.2f} before the benchmark: other processes "
            "run on this machine"
        )
    if before.memory_available_mb is not None and before.memory_available_mb < LITTLE_MEMORY_MB:
        yield (
            f"only {before.memory_available_mb:.0f} MB of memory were free: models may have been "
            "evicted from the page cache and read again"
        )


def _clock(state: MachineState) -> str:
    groups = [
        f"{group.governor or 'unknown governor'} {_mhz(group.mhz)} of {_mhz(group.limit_mhz)} MHz"
        for group in state.frequencies
    ]
    if state.firmware_clock_mhz is not None:
        groups.append(f"firmware reports {state.firmware_clock_mhz:.0f} MHz")
    return _joined(*groups) or _UNKNOWN


def _temperature(state: MachineState) -> str:
    return _joined(*(f"{k} {v:.0f} °C" for k, v in state.temperatures_c.items())) or _UNKNOWN


def _mhz(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)
