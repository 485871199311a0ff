"""A whole daemon without a model runtime: synthetic source, recorded outputs, NDJSON."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_cli_run_with_recorded_outputs(tmp_path: Path) -> None:
    recording = tmp_path / "outputs.npz"
    subprocess.run(
        [
            *(sys.executable, str(ROOT / "tools" / "record_outputs.py")),
            *("synthetic:?realtime=0", str(recording), "--frames", "12"),
        ],
        check=True,
        timeout=60,
    )
    config = tmp_path / "config.yaml"
    config.write_text(
        "cameras: [{source: 'synthetic:?fps=50'}]\n"
        "accelerator: replay\n"
        f"inference: {{recording: {recording}}}\n"
        "mqtt: {enabled: false}\n"
        "output: {ndjson: true}\n"
        f"state_directory: {tmp_path}\n"
    )
    # A runtime that cannot be imported shows that none is used.
    blocked = "import sys; sys.modules['ai_edge_litert'] = sys.modules['tflite_runtime'] = None; "
    command = f"{blocked}from edgepose.__main__ import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "run", "-c", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    messages = [json.loads(process.stdout.readline()) for _ in range(20)]
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert {message["accelerator"] for message in messages} == {"replay"}
    # Where the recording begins again, its outputs are for another crop.
    assert sum(len(message["poses"]) == 1 for message in messages) >= 15
