"""Names of files that no locale, terminal or JSON expects, in every command that shows them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgepose.registry.registry import bundled_folder
from tests.images import DATA

NAMES = (b"caf\xe9", b"new\nline", b"esc\x1b[31m", b"[bold]x[red]", "\u00e9\u6f22".encode())
UTF8, ASCII = {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ENVIRONMENTS = (UTF8, ASCII)


def run(environment: Mapping[str, str], *arguments: bytes | str) -> tuple[int, bytes, str]:
    """Run a command and return exit code, stdout and stderr, which is valid UTF-8."""
    done = subprocess.run(
        [sys.executable, "-m", "edgepose", *arguments],
        capture_output=True,
        env=os.environ | environment,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture
def folder(tmp_path: Path) -> bytes:
    """Return a folder of images with such names."""
    path = os.fsencode(tmp_path / "images")
    Path(os.fsdecode(path)).mkdir()
    for name in NAMES:
        shutil.copy(os.fsencode(DATA / "camera.jpg"), os.path.join(path, name + b".jpg"))  # noqa: PTH118
    return path


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_estimate_names_in_json(folder: bytes, environment: Mapping[str, str]) -> None:
    """Every line is valid JSON; only bytes that are not UTF-8 are escaped."""
    code, out, err = run(environment, "estimate", folder)
    assert (code, err) == (0, "")
    sources = {json.loads(line)["source"].rpartition("/")[2] for line in out.decode().splitlines()}
    assert sources == {name.decode("utf-8", "backslashreplace") + ".jpg" for name in NAMES}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_estimate_names_in_table(folder: bytes, environment: Mapping[str, str]) -> None:
    """A row shows a name with the bytes it has; only control characters are escaped."""
    code, out, err = run(environment, "estimate", folder, "--format", "table")
    assert (code, err) == (0, "")
    names = {line.split()[0].rpartition(b"/")[2] for line in out.splitlines()[1:]}
    shown = {name.replace(b"\n", b"\\n").replace(b"\x1b", b"\\x1b") + b".jpg" for name in NAMES}
    assert names == shown


@pytest.mark.parametrize(
    "command", ["estimate", "replay", "models info", "config check -c", "benchmark compare x"]
)
def test_error_names_a_missing_file(tmp_path: Path, command: str) -> None:
    """The error is one line with the name, whatever it contains."""
    path = os.fsencode(tmp_path) + b"/caf\xe9\n[bold]\xc3\xa9.tflite"
    words = command.replace(" x", f" {min(Path('docs/results').glob('*.json'))}").split()
    code, out, err = run(ASCII, *words, path)
    assert (code, out) == (2 if "config" in command else 1, b"")
    (line,) = err.splitlines()
    assert line.startswith("edgepose: ")
    assert "caf\\xe9\\n[bold]é.tflite" in line


def test_models_and_config_names_in_json_and_yaml(tmp_path: Path) -> None:
    """They are valid, and keep what is UTF-8."""
    model = os.fsencode(tmp_path) + b"/\xc3\xa9\xff.tflite"
    shutil.copy(os.fsencode(bundled_folder() / "movenet-lightning-int8.tflite"), model)
    code, out, err = run(ASCII, "models", "info", model, "--format", "json")
    assert (code, err) == (0, "")
    assert "\ufffd.tflite" in json.loads(out)["path"]
    config = tmp_path / "c.yaml"
    config.write_text("cameras: [{source: /K\u00fcche.mp4}]\n")
    for output_format in ("json", "yaml"):
        code, out, _ = run(ASCII, "config", "show", "-c", str(config), "--format", output_format)
        assert code == 0
        assert "/K\u00fcche.mp4" in out.decode()


def test_error_of_a_full_stdout() -> None:
    """It is named, not only the reason."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgepose", "models", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        b"edgepose: cannot write to stdout or another open file: No space left on device\n"
    )
