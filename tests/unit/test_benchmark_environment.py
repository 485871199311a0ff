"""Warnings derived from the state of the machine."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgepose.benchmark import environment
from edgepose.benchmark.results import EdgeTpuPort
from edgepose.monitoring import host
from edgepose.monitoring.host import MachineState
from tests.benchmark_documents import document
from tests.machines import no_firmware, raspberry_pi_4, raspberry_pi_5, write


def warnings(*values: Any) -> tuple[str, ...]:
    return tuple(environment.warnings(*values))


def state_of(root: Path) -> MachineState:
    return host.machine_state(root, no_firmware)


def quiet_pi(tmp_path: Path) -> MachineState:
    return state_of(raspberry_pi_4(tmp_path, governor="performance"))


def test_warnings_none_on_quiet_machine(tmp_path: Path) -> None:
    state = quiet_pi(tmp_path)
    assert warnings(state, state) == ()


def test_warnings_none_without_sensors(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    assert warnings(state, state) == ()


def test_warnings_governor(tmp_path: Path) -> None:
    state = state_of(raspberry_pi_4(tmp_path, governor="ondemand", khz=600000))
    (warning,) = warnings(state, state)
    assert "the governor of cores 0 1 2 3 is ondemand" in warning
    assert "echo performance" in warning


def test_warnings_clock_reduced(tmp_path: Path) -> None:
    before = quiet_pi(tmp_path)
    (group,) = before.frequencies
    after = dataclasses.replace(before, frequencies=(dataclasses.replace(group, mhz=1000.0),))
    (warning,) = warnings(before, after)
    assert "cores 0 1 2 3 ran at 1000 of 1800 MHz afterwards" in warning
    # The kernel repeats what it asked for; the firmware knows what the cores got.
    (warning,) = warnings(before, dataclasses.replace(before, firmware_clock_mhz=750.0))
    assert "ran at 750 of 1800 MHz" in warning
    assert warnings(before, dataclasses.replace(before, firmware_clock_mhz=1800.4)) == ()


def test_warnings_clock_limited(tmp_path: Path) -> None:
    before = quiet_pi(tmp_path)
    (group,) = before.frequencies
    limited = dataclasses.replace(
        before, frequencies=(dataclasses.replace(group, limit_mhz=1500.0, mhz=1500.0),)
    )
    (warning,) = warnings(limited, limited)
    assert "limited to 1500 of their 1800 MHz" in warning


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ((), ("under_voltage",), "figures are too slow: the supply voltage is too low"),
        (("throttled",), (), "figures are too slow: the cores are throttled; cool them"),
        (
            (),
            ("under_voltage_occurred",),
            "at times during the benchmark the supply voltage is too low",
        ),
        (
            ("frequency_capped_occurred",),
            ("frequency_capped_occurred",),
            "at times since the machine started, not during the benchmark, the clock is capped",
        ),
    ],
)
def test_warnings_throttling(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...], message: str
) -> None:
    state = quiet_pi(tmp_path)
    found = warnings(
        dataclasses.replace(state, throttling=before), dataclasses.replace(state, throttling=after)
    )
    assert len(found) == 1
    assert message in found[0]


def test_warnings_throttling_reported_once(tmp_path: Path) -> None:
    state = dataclasses.replace(quiet_pi(tmp_path), throttling=("throttled", "throttled_occurred"))
    assert len(warnings(state, state)) == 1


def test_warnings_temperature_load_and_memory(tmp_path: Path) -> None:
    state = state_of(raspberry_pi_5(tmp_path))
    hot, busy = warnings(state, state)
    assert hot.startswith("84 °C is hot")
    assert "the load average was 1.75 before the benchmark" in busy
    full = dataclasses.replace(quiet_pi(tmp_path / "4"), memory_available_mb=60.0)
    (warning,) = warnings(full, full)
    assert "only 60 MB of memory were free" in warning


def test_warnings_edge_tpu_on_usb2(tmp_path: Path) -> None:
    state = quiet_pi(tmp_path)
    ports = (
        EdgeTpuPort(bus="usb", usb_mbit_per_s=480),
        EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),
        EdgeTpuPort(bus="pci"),
    )
    (warning,) = warnings(state, state, ports)
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


def test_facts_raspberry_pi(tmp_path: Path) -> None:
    written = document(tmp_path, edge_tpus=(EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),))
    assert environment.facts(written) == {
        "edgepose": "0.1.0",
        "runtimes": "litert 2.3.0",
        "machine": "Raspberry Pi 4 Model B Rev 1.4",
        "processor": "bcm2711, Cortex-A72, 4 of 4 cores",
        "memory": "1.9 GB",
        "system": "Debian GNU/Linux 12 (bookworm), aarch64",
        "kernel": "6.6.51+rpt-rpi-v8",
        "Python": "3.11.2",
        "clock": "ondemand, at most 1800 MHz",
        "throttling": "none",
        "Edge TPU": "usb at 5000 Mbit/s",
    }
    in_container = replace(written, machine=dataclasses.replace(written.machine, usable_cores=2))
    assert environment.facts(in_container)["processor"].endswith("2 of 4 cores")


def test_facts_unknown(tmp_path: Path) -> None:
    bare = document(tmp_path, machine=host.machine(tmp_path / "none"), before=state_of(tmp_path))
    found = environment.facts(bare)
    assert (found["memory"], found["kernel"], found["Edge TPU"]) == ("unknown", "unknown", "none")


def test_state_text_raspberry_pi(tmp_path: Path) -> None:
    state = state_of(raspberry_pi_4(tmp_path, throttled="50000"))
    throttled = "throttling: under voltage occurred, throttled occurred"
    assert environment.state_text(state) == f"1800 MHz, cpu-thermal 61 °C, {throttled}"
    firmware = dataclasses.replace(state, firmware_clock_mhz=1500.4, throttling=None)
    assert environment.state_text(firmware) == (
        "1800 MHz, 1500 MHz by the firmware, cpu-thermal 61 °C, throttling: unknown"
    )
