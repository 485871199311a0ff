"""Record a model's raw outputs over a source, for `accelerator: replay`.

python tools/record_outputs.py SOURCE OUTPUT.npz [--model NAME] [--frames N]
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgepose.build import build_model, source_opener
from edgepose.config.loader import load_config
from edgepose.config.schema import CameraConfig
from edgepose.datatypes import TensorSpec
from edgepose.detection.crop_state import CropState
from edgepose.imaging.preprocess import preprocess
from edgepose.inference.replay import VERSION
from edgepose.protocols import Interpreter, Tensor


class OutputRecorder:
    """Wraps an interpreter and keeps the outputs of every invoke, for `save`."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.input = interpreter.input
        self.outputs = interpreter.outputs
        self._interpreter = interpreter
        self._recordings: list[Sequence[Tensor]] = []

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the model and keep its outputs; raises as the interpreter does."""
        outputs = self._interpreter.invoke(tensor)
        self._recordings.append([output.copy() for output in outputs])
        return outputs

    def close(self) -> None:
        """Free the model; what was recorded stays."""
        self._interpreter.close()

    def save(self, path: Path) -> None:
        """Write the recording as .npz; raises OSError, or ValueError if nothing was recorded."""
        if not self._recordings:
            raise ValueError("expected at least one invoke to record, got none")
        arrays: dict[str, Any] = {
            "version": np.array(VERSION),
            "input": _as_array(self.input),
            "input_dtype": np.array(self.input.dtype.str),
            "names": np.array([spec.name for spec in (self.input, *self.outputs)]),
        }
        for index, spec in enumerate(self.outputs):
            arrays[f"spec_{index}"] = _as_array(spec)
            arrays[f"output_{index}"] = np.stack([outputs[index] for outputs in self._recordings])
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)


def _as_array(spec: TensorSpec) -> Tensor:
    return np.array([spec.scale, spec.zero_point, *spec.shape], np.float64)


def main() -> None:
    """Record, and print how many frames."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="a source URI, such as synthetic: or a video file")
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="movenet-lightning-int8")
    parser.add_argument("--frames", type=int, default=100)
    options = parser.parse_args()
    model = build_model(load_config(None, {"model.name": options.model}))
    recorder, crop = OutputRecorder(model.interpreter), CropState()
    source = source_opener(CameraConfig(source=options.source))()
    for frame in itertools.islice(source.frames(), options.frames):
        spec = model.pose_model.input_spec
        tensor, to_frame = preprocess(frame.image, crop.region_for(frame, spec), spec)
        crop.update(model.pose_model.decode(recorder.invoke(tensor), to_frame), model, frame)
    recorder.save(options.output)
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
