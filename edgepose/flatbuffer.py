"""Reads and edits the few parts of a TFLite file that decide whether a runtime can take it.

A runtime refuses a file as a whole, and says little about why. This reads which operators a file is
made of, and takes a last custom operator off (Coral's PoseNet files end in a decoder that stock
runtimes do not have). It needs neither the `flatbuffers` package nor a generated schema, which not
every runtime brings; field numbers are those of TensorFlow's `schema.fbs`, version 3.
"""

import struct
from collections import Counter
from dataclasses import dataclass
from typing import Final

from edgepose.errors import ModelFileError

EDGETPU_OP: Final = "edgetpu-custom-op"
"""What the Edge TPU compiler packs the operators into that the TPU runs."""
POSENET_DECODER_OP: Final = "PosenetDecoderOp"
"""The custom operator at the end of Coral's `*_quant_decoder` files."""

_IDENTIFIER: Final = b"TFL3"
_CUSTOM: Final = 32

_MODEL_OPERATOR_CODES: Final = 1
_MODEL_SUBGRAPHS: Final = 2
_MODEL_BUFFERS: Final = 4
_MODEL_SIGNATURES: Final = 7
_BUFFER_DATA: Final = 0
_BUFFER_OFFSET: Final = 1
_BUFFER_SIZE: Final = 2
_SUBGRAPH_TENSORS: Final = 0
_TENSOR_SHAPE: Final = 0
_TENSOR_BUFFER: Final = 2
_TENSOR_NAME: Final = 3
_CODE_OLD_BUILTIN: Final = 0
_CODE_CUSTOM_NAME: Final = 1
_CODE_BUILTIN: Final = 3
_SUBGRAPH_OUTPUTS: Final = 2
_SUBGRAPH_OPERATORS: Final = 3
_OPERATOR_CODE: Final = 0
_OPERATOR_INPUTS: Final = 1
_OPERATOR_OUTPUTS: Final = 2

_BUILTIN_NAMES: Final = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D",
    5: "DEPTH_TO_SPACE", 6: "DEQUANTIZE", 8: "FLOOR", 9: "FULLY_CONNECTED", 14: "LOGISTIC",
    17: "MAX_POOL_2D", 18: "MUL", 19: "RELU", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR",
    25: "SOFTMAX", 28: "TANH", 34: "PAD", 36: "GATHER", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB",
    42: "DIV", 43: "SQUEEZE", 45: "STRIDED_SLICE", 47: "EXP", 48: "TOPK_V2", 49: "SPLIT",
    53: "CAST", 55: "MAXIMUM", 56: "ARG_MAX", 57: "MINIMUM", 58: "LESS", 61: "GREATER",
    65: "SLICE", 67: "TRANSPOSE_CONV", 70: "EXPAND_DIMS", 74: "SUM", 75: "SQRT", 77: "SHAPE",
    83: "PACK", 88: "UNPACK", 90: "FLOOR_DIV", 99: "SQUARED_DIFFERENCE", 107: "GATHER_ND",
    114: "QUANTIZE", 117: "HARD_SWISH",
}  # fmt: skip
"""The built-in operators met in pose models; any other is shown by its number."""


@dataclass(frozen=True, slots=True)
class _Operator:
    """One operator of a subgraph; `slot` is its place in the subgraph's list."""

    slot: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def operators(data: bytes, *, name: str = "the model") -> Counter[str]:
    """Count a TFLite file's operators by name, custom ones by the name they carry.

    `name` is how errors call the file. Raises ModelFileError where the bytes are no TFLite file or
    not a whole one: tflite-runtime 2.14 does not check, and a truncated file kills its process.
    """
    reader = _Reader(data, name)
    reader.check_buffers()
    codes = reader.operator_codes()
    counts: Counter[str] = Counter()
    for subgraph in reader.subgraphs():
        reader.check_tensors(subgraph)
        for slot in reader.table_vector(subgraph, _SUBGRAPH_OPERATORS):
            counts[reader.operator(slot, codes).name] += 1
    return counts


def summary(counts: Counter[str]) -> str:
    """Return operator counts as a few words, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no operators"


def without_custom_op(data: bytes, op_name: str, *, name: str = "the model") -> bytes:
    """Return a TFLite file without a custom operator, whose inputs become outputs instead.

    Outputs that the operator did not make stay, before the new ones. A file without it is returned
    as it is. Signatures are dropped, since they name the outputs that went. Raises ModelFileError
    where the bytes are no TFLite file, and where another operator needs what this one makes.
    """
    reader = _Reader(data, name)
    codes = reader.operator_codes()
    if op_name not in codes:
        return data
    edited = bytearray(data)
    changed = False
    for subgraph in reader.subgraphs():
        slots = reader.table_vector(subgraph, _SUBGRAPH_OPERATORS)
        all_operators = [reader.operator(slot, codes) for slot in slots]
        found = [operator for operator in all_operators if operator.name == op_name]
        if not found:
            continue
        (gone, *more) = found
        consumers = [
            operator.name
            for operator in all_operators
            if operator is not gone and not set(gone.outputs).isdisjoint(operator.inputs)
        ]
        if more or consumers:
            raise ModelFileError(
                f"{name}: expected {op_name} once, as the last operator, got it "
                f"{len(found)} times, before {', '.join(consumers) or 'nothing'}; "
                "it cannot be taken off this file"
            )
        _remove_slot(edited, slots, gone.slot)
        outputs = [
            tensor
            for tensor in reader.ints(subgraph, _SUBGRAPH_OUTPUTS)
            if tensor not in gone.outputs
        ]
        outputs += [tensor for tensor in gone.inputs if tensor >= 0]
        _point_to_new_vector(edited, reader.required(subgraph, _SUBGRAPH_OUTPUTS), outputs)
        changed = True
    if not changed:
        return data
    signatures = reader.field(reader.root, _MODEL_SIGNATURES)
    if signatures is not None:
        _point_to_new_vector(edited, signatures, [])
    return bytes(edited)


def _remove_slot(edited: bytearray, slots: list[int], gone: int) -> None:
    """Take one entry out of a vector of tables, in place.

    Offsets count from the entry that holds them and may only point forward, so the entries cannot
    move behind the tables; those after the gap move up by one, and count one entry more.
    """
    index = slots.index(gone)
    for earlier, later in zip(slots[index:], slots[index + 1 :], strict=False):
        (offset,) = struct.unpack_from("<I", edited, later)
        struct.pack_into("<I", edited, earlier, offset + later - earlier)
    struct.pack_into("<I", edited, slots[0] - 4, len(slots) - 1)


def _point_to_new_vector(edited: bytearray, field: int, values: list[int]) -> None:
    """Append a vector of int32 to the file and point a field to it."""
    edited.extend(bytes(-len(edited) % 4))
    struct.pack_into("<I", edited, field, len(edited) - field)
    edited.extend(struct.pack(f"<I{len(values)}i", len(values), *values))


class _Reader:
    """Walks a flatbuffer with every step checked; positions are bytes from its start."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        if data[4:8] != _IDENTIFIER:
            raise ModelFileError(
                f"{name}: expected a TFLite file, which has TFL3 at its fifth byte, got "
                f"{len(data)} bytes that start with {data[:8]!r}; fetch or build it again"
            )
        self.root = self._indirect(0)

    def subgraphs(self) -> list[int]:
        """Return the positions of the subgraph tables."""
        return [self._indirect(slot) for slot in self.table_vector(self.root, _MODEL_SUBGRAPHS)]

    def check_buffers(self) -> None:
        """Raise ModelFileError unless all weights are inside the file."""
        for slot in self.table_vector(self.root, _MODEL_BUFFERS):
            buffer = self._indirect(slot)
            data = self.field(buffer, _BUFFER_DATA)
            if data is not None:
                self._vector(data, 1)
            # Newer writers put weights behind the flatbuffer, as bytes that no vector describes.
            offset, size = (self.field(buffer, n) for n in (_BUFFER_OFFSET, _BUFFER_SIZE))
            if offset is not None and size is not None:
                end = self._unpack("<Q", offset) + self._unpack("<Q", size)
                if end > len(self._data):
                    raise self._damaged(end)

    def check_tensors(self, subgraph: int) -> None:
        """Raise ModelFileError unless a subgraph's tensors are whole and refer to real buffers."""
        buffers = len(self.table_vector(self.root, _MODEL_BUFFERS))
        for slot in self.table_vector(subgraph, _SUBGRAPH_TENSORS):
            tensor = self._indirect(slot)
            self.ints(tensor, _TENSOR_SHAPE)
            name = self.field(tensor, _TENSOR_NAME)
            if name is not None:
                self._vector(name, 1)
            buffer = self.field(tensor, _TENSOR_BUFFER)
            if buffer is not None and self._unpack("<I", buffer) >= buffers:
                raise self._damaged(tensor)

    def operator_codes(self) -> list[str]:
        """Return the operator names that operators refer to by index."""
        names: list[str] = []
        for slot in self.table_vector(self.root, _MODEL_OPERATOR_CODES):
            table = self._indirect(slot)
            custom = self.field(table, _CODE_CUSTOM_NAME)
            # Codes above 127 are only in the newer field, those of old files only in the byte.
            old = self.field(table, _CODE_OLD_BUILTIN)
            new = self.field(table, _CODE_BUILTIN)
            code = max(
                self._unpack("<b", old) if old is not None else 0,
                self._unpack("<i", new) if new is not None else 0,
            )
            if code == _CUSTOM and custom is not None:
                start, length = self._vector(custom, 1)
                names.append(self._data[start : start + length].decode("utf-8", "replace"))
            else:
                names.append(_BUILTIN_NAMES.get(code, f"builtin {code}"))
        return names

    def operator(self, slot: int, codes: list[str]) -> _Operator:
        """Read the operator that a slot of a subgraph's list points to."""
        table = self._indirect(slot)
        field = self.field(table, _OPERATOR_CODE)
        index = self._unpack("<I", field) if field is not None else 0
        if index >= len(codes):
            raise self._damaged(table)
        return _Operator(
            slot,
            codes[index],
            self.ints(table, _OPERATOR_INPUTS),
            self.ints(table, _OPERATOR_OUTPUTS),
        )

    def field(self, table: int, number: int) -> int | None:
        """Return where a table keeps a field, or None where it has its default."""
        vtable = table - self._unpack("<i", table)
        entry = 4 + 2 * number
        if entry + 2 > self._unpack("<H", vtable):
            return None
        offset = self._unpack("<H", vtable + entry)
        return table + offset if offset else None

    def required(self, table: int, number: int) -> int:
        """Return where a table keeps a field that must be there."""
        field = self.field(table, number)
        if field is None:
            raise self._damaged(table)
        return field

    def ints(self, table: int, number: int) -> tuple[int, ...]:
        """Return a field that is a vector of int32."""
        field = self.field(table, number)
        if field is None:
            return ()
        start, length = self._vector(field, 4)
        return struct.unpack_from(f"<{length}i", self._data, start)

    def table_vector(self, table: int, number: int) -> list[int]:
        """Return where the entries of a vector of tables are, each an offset to its table."""
        field = self.field(table, number)
        if field is None:
            return []
        start, length = self._vector(field, 4)
        return [start + 4 * index for index in range(length)]

    def _vector(self, field: int, entry_bytes: int) -> tuple[int, int]:
        position = self._indirect(field)
        length = self._unpack("<I", position)
        if position + 4 + length * entry_bytes > len(self._data):
            raise self._damaged(position)
        return position + 4, length

    def _indirect(self, position: int) -> int:
        return position + self._unpack("<I", position)

    def _unpack(self, layout: str, position: int) -> int:
        if position < 0 or position + struct.calcsize(layout) > len(self._data):
            raise self._damaged(position)
        value: int = struct.unpack_from(layout, self._data, position)[0]
        return value

    def _damaged(self, position: int) -> ModelFileError:
        return ModelFileError(
            f"{self._name}: expected a whole TFLite file, got {len(self._data)} bytes with a "
            f"broken reference to byte {position}; it is truncated or damaged, fetch or build "
            "it again"
        )
