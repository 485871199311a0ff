"""Finding Edge TPUs in a tree of files like the kernel's."""

import os
from pathlib import Path

from edgepose.monitoring.edgetpu_devices import EdgeTpuDevice, find_devices, holders


def plug_in(root: Path, name: str, vendor: str, product: str, speed: str = "5000") -> Path:
    folder = root / "sys/bus/usb/devices" / name
    folder.mkdir(parents=True)
    files = {"idVendor": vendor, "idProduct": product, "busnum": "2", "devnum": "7", "speed": speed}
    for file, text in files.items():
        (folder / file).write_text(f"{text}\n")
    node = root / "dev/bus/usb/002/007"
    node.parent.mkdir(parents=True, exist_ok=True)
    node.touch()
    return node


def test_none(tmp_path: Path) -> None:
    assert find_devices(tmp_path) == ()
    plug_in(tmp_path, "1-1", "046d", "0825")
    (tmp_path / "sys/bus/usb/devices/1-1:1.0").mkdir()
    assert find_devices(tmp_path) == ()


def test_usb_before_and_after_its_first_use(tmp_path: Path) -> None:
    for number, ids in enumerate([("1a6e", "089a"), ("18d1", "9302")]):
        root = tmp_path / str(number)
        node = plug_in(root, "2-1", *ids)
        assert find_devices(root) == (EdgeTpuDevice("usb", node, 5000),)
        assert find_devices(root)[0].accessible


def test_on_usb_2(tmp_path: Path) -> None:
    plug_in(tmp_path, "1-1.2", "18d1", "9302", speed="480")
    assert find_devices(tmp_path)[0].usb_mbit_per_s == 480


def test_a_node_that_is_not_there_is_not_accessible(tmp_path: Path) -> None:
    plug_in(tmp_path, "2-1", "18d1", "9302").unlink()
    assert not find_devices(tmp_path)[0].accessible


def test_pci(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("apex_1", "apex_0"):
        (tmp_path / "dev" / name).touch()
    assert [device.node.name for device in find_devices(tmp_path)] == ["apex_0", "apex_1"]


def test_who_holds_it(tmp_path: Path) -> None:
    node = plug_in(tmp_path, "2-1", "18d1", "9302")
    (device,) = find_devices(tmp_path)
    assert holders(device) == ()
    with node.open():
        (holder,) = holders(device)
    assert holder.endswith(f"(pid {os.getpid()})")
