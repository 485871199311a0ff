"""A fake accelerator that plays recorded model outputs: a whole line without a model runtime."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from edgepose.datatypes import TensorSpec
from edgepose.errors import AcceleratorError, ModelFileError
from edgepose.protocols import Tensor

DEVICE: Final = "replay"
MAX_BYTES: Final = 256 << 20
VERSION: Final = 1


@dataclass(eq=False)
class ReplayInterpreter:
    """Returns recorded outputs, one recording after the other and then from the beginning.

    `recordings` are the outputs of one invoke each; see `protocols.Interpreter`.
    """

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    recordings: Sequence[Sequence[Tensor]]
    name: str
    _next: int = field(default=0, init=False)

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return copies of the next outputs; raises AcceleratorError for a wrong tensor."""
        if not self.recordings:
            raise AcceleratorError(f"{self.name}: invoked after close()")
        if tensor.shape != self.input.shape or tensor.dtype != self.input.dtype:
            raise AcceleratorError(
                f"{self.name}: invoke failed: expected a tensor {self.input.dtype} "
                f"{self.input.shape}, got {tensor.dtype} {tensor.shape}"
            )
        outputs = self.recordings[self._next]
        self._next = (self._next + 1) % len(self.recordings)
        return [output.copy() for output in outputs]

    def close(self) -> None:
        """Free the recording; closing twice is fine."""
        self.recordings = ()


def load_recording(path: Path) -> ReplayInterpreter:
    """Read a recording that tools/record_outputs.py wrote.

    Raises ModelFileError if it cannot be read or is not such a file.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path}: expected a recording of at most {MAX_BYTES >> 20} MiB")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if int(arrays["version"]) != VERSION:
                raise ModelFileError(
                    f"{path}: expected a recording of version {VERSION}, got {arrays['version']}"
                )
            names = [str(name) for name in arrays["names"]]
            input_spec = _spec(names[0], arrays["input"], np.dtype(str(arrays["input_dtype"])))
            outputs = [arrays[f"output_{index}"] for index in range(len(names) - 1)]
            specs = [
                _spec(name, arrays[f"spec_{index}"], output.dtype)
                for index, (name, output) in enumerate(zip(names[1:], outputs, strict=True))
            ]
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read the recording: {error.strerror}") from error
    except (ValueError, KeyError, IndexError, TypeError, EOFError, BadZipFile) as error:
        raise ModelFileError(
            f"{path}: expected model outputs recorded by tools/record_outputs.py (.npz), got "
            f"another file or a damaged one ({type(error).__name__})"
        ) from error
    count = min((len(output) for output in outputs), default=0)
    if not count or any(
        len(output) != count or output.shape[1:] != spec.shape
        for output, spec in zip(outputs, specs, strict=True)
    ):
        raise ModelFileError(f"{path}: expected outputs of the recorded shapes; record it again")
    recordings = [[output[number] for output in outputs] for number in range(count)]
    return ReplayInterpreter(input_spec, tuple(specs), recordings, str(path))


def _spec(name: str, values: Tensor, dtype: np.dtype[np.generic]) -> TensorSpec:
    scale, zero_point, *shape = values.tolist()
    return TensorSpec(
        name, tuple(int(extent) for extent in shape), dtype, float(scale), int(zero_point)
    )
