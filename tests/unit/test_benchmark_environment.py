"""Warnings derived from the state of the machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgepose.benchmark import environment
from edgepose.benchmark.results import EdgeTpuPort
from edgepose.monitoring import host
from edgepose.monitoring.host import MachineState
from tests.machines import no_firmware, raspberry_pi_4, raspberry_pi_5, write

CLOCK = "ondemand 1800 of 1800 MHz"
THROTTLED = "under voltage occurred, throttled occurred"


def state_of(root: Path) -> MachineState:
    return host.machine_state(root, no_firmware)


def quiet_pi(tmp_path: Path) -> MachineState:
    return state_of(raspberry_pi_4(tmp_path, governor="performance"))


def test_warnings_none_on_quiet_machine(tmp_path: Path) -> None:
    state = quiet_pi(tmp_path)
    assert environment.warnings(state, state) == ()


def test_warnings_none_without_sensors(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    assert environment.warnings(state, state) == ()


def test_warnings_governor(tmp_path: Path) -> None:
    state = state_of(raspberry_pi_4(tmp_path, governor="ondemand", khz=600000))
    (warning,) = environment.warnings(state, state)
    assert "the governor of cores 0 1 2 3 is ondemand" in warning
    assert "echo performance" in warning


def test_warnings_clock_reduced(tmp_path: Path) -> None:
    before = quiet_pi(tmp_path)
    (group,) = before.frequencies
    after = replace(before, frequencies=(replace(group, mhz=1000.0),))
    (warning,) = environment.warnings(before, after)
    assert "cores 0 1 2 3 ran at 1000 of 1800 MHz afterwards" in warning
    # The kernel repeats what it asked for; the firmware knows what the cores got.
    (warning,) = environment.warnings(before, replace(before, firmware_clock_mhz=750.0))
    assert "ran at 750 of 1800 MHz" in warning
    assert environment.warnings(before, replace(before, firmware_clock_mhz=1800.4)) == ()


def test_warnings_clock_limited(tmp_path: Path) -> None:
    before = quiet_pi(tmp_path)
    (group,) = before.frequencies
    limited = replace(before, frequencies=(replace(group, limit_mhz=1500.0, mhz=1500.0),))
    (warning,) = environment.warnings(limited, limited)
    assert "limited to 1500 of their 1800 MHz" in warning


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ((), ("under_voltage",), "the supply voltage is too low: these figures are too slow"),
        (("throttled",), (), "the cores are throttled: these figures are too slow; cool it"),
        ((), ("under_voltage_occurred",), "too low, at times during the benchmark"),
        (
            ("frequency_capped_occurred",),
            ("frequency_capped_occurred",),
            "the clock is capped, at times since the machine started, not during the benchmark",
        ),
    ],
)
def test_warnings_throttling(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...], message: str
) -> None:
    state = quiet_pi(tmp_path)
    found = environment.warnings(
        replace(state, throttling=before), replace(state, throttling=after)
    )
    assert len(found) == 1
    assert message in found[0]


def test_warnings_throttling_reported_once(tmp_path: Path) -> None:
    state = replace(quiet_pi(tmp_path), throttling=("throttled", "throttled_occurred"))
    assert len(environment.warnings(state, state)) == 1


def test_warnings_temperature_load_and_memory(tmp_path: Path) -> None:
    state = state_of(raspberry_pi_5(tmp_path))
    hot, busy = environment.warnings(state, state)
    assert hot.startswith("84 °C is hot")
    assert "the load average was 1.75 before the benchmark" in busy
    full = replace(quiet_pi(tmp_path / "4"), memory_available_mb=60.0)
    (warning,) = environment.warnings(full, full)
    assert "only 60 MB of memory were free" in warning


def test_warnings_edge_tpu_on_usb2(tmp_path: Path) -> None:
    state = quiet_pi(tmp_path)
    ports = (
        EdgeTpuPort(bus="usb", usb_mbit_per_s=480),
        EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),
        EdgeTpuPort(bus="pci"),
    )
    (warning,) = environment.warnings(state, state, ports)
    assert "an Edge TPU is connected at 480 Mbit/s (USB 2)" in warning


def test_edge_tpu_ports_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepose.monitoring.edgetpu_devices import find_devices

    folder = "sys/bus/usb/devices/2-1"
    write(
        tmp_path,
        {
            f"{folder}/idVendor": "18d1\n",
            f"{folder}/idProduct": "9302\n",
            f"{folder}/busnum": "2\n",
            f"{folder}/devnum": "3\n",
            f"{folder}/speed": "5000\n",
        },
    )
    monkeypatch.setattr(environment, "find_devices", lambda: find_devices(tmp_path))
    assert environment.edge_tpu_ports() == (EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),)


def test_described_raspberry_pi(tmp_path: Path) -> None:
    root = raspberry_pi_4(tmp_path, throttled="50000")
    state = state_of(root)
    machine = replace(host.machine(root), architecture="aarch64", python="3.11.2", usable_cores=4)
    after = replace(state, temperatures_c={"cpu-thermal": 71.2}, firmware_clock_mhz=1800.4)
    ports = (EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),)
    assert list(environment.described(machine, state, after, ports)) == [
        "machine: Raspberry Pi 4 Model B Rev 1.4 (bcm2711, Cortex-A72), 4 cores, 1929 MB",
        "system: Debian GNU/Linux 12 (bookworm), kernel 6.6.51+rpt-rpi-v8, aarch64, Python 3.11.2",
        f"clock: {CLOCK}; afterwards {CLOCK}, firmware reports 1800 MHz",
        "temperature: cpu-thermal 61 °C; afterwards cpu-thermal 71 °C",
        f"throttling: {THROTTLED}; afterwards {THROTTLED}",
        "Edge TPU: usb at 5000 Mbit/s",
    ]
    in_container = environment.described(replace(machine, usable_cores=2), state, state, ())
    assert "4 cores (2 usable)" in in_container[0]
