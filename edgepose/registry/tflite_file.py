"""Reads, checks and edits the parts of a TFLite file that decide whether a runtime can take it.

A runtime refuses a file as a whole, and says little about why; or it trusts the file, and a damaged
one ends the process. This reads which operators a file is made of, refuses one that a runtime would
stumble over, and takes a last custom operator off (Coral's PoseNet files end in a decoder that
stock runtimes do not have). It needs neither the `flatbuffers` package nor a generated schema,
which not every runtime brings; field numbers are those of TensorFlow's `schema.fbs`, version 3.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

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
_SUBGRAPH_INPUTS: Final = 1
_TENSOR_SHAPE: Final = 0
_TENSOR_TYPE: Final = 1
_TENSOR_BUFFER: Final = 2
_TENSOR_QUANTIZATION: Final = 4
_TENSOR_VARIABLE: Final = 5
_TENSOR_SPARSITY: Final = 6
_QUANTIZATION_SCALE: Final = 2
_QUANTIZATION_ZERO_POINT: Final = 3
_CODE_OLD_BUILTIN: Final = 0
_CODE_CUSTOM_NAME: Final = 1
_CODE_BUILTIN: Final = 3
_SUBGRAPH_OUTPUTS: Final = 2
_SUBGRAPH_OPERATORS: Final = 3
_OPERATOR_CODE: Final = 0
_OPERATOR_INPUTS: Final = 1
_OPERATOR_OUTPUTS: Final = 2
_OPERATOR_OPTIONS_TYPE: Final = 3
_OPERATOR_OPTIONS: Final = 4
_OPERATOR_OPTIONS_2: Final = 12

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


_CONTROL_FLOW: Final = frozenset({"builtin 31", "builtin 118", "builtin 119", "builtin 129"})
"""CALL, IF, WHILE and CALL_ONCE run other subgraphs: a bad one never comes to an end."""

_TYPE_BYTES: Final[Mapping[int, float]] = {
    0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 8: 8, 9: 1, 10: 8, 12: 8, 15: 4, 16: 2, 17: 0.5,
}  # fmt: skip
"""The size of a tensor's elements by their type; texts and resources are not among them."""

_ZERO_POINTS: Final[Mapping[int, range]] = {3: range(256), 9: range(-128, 128)}
_SMALLEST_NORMAL: Final = 2.0**-126

MAX_RANK: Final = 8
MAX_TENSOR_BYTES: Final = 1 << 28
"""A MoveNet's largest tensor has 3 MB, that of a PoseNet for 1280x720 has 30."""


@dataclass(frozen=True, slots=True)
class _Field:
    """What a field of a table holds: a scalar of `size` bytes, a vector, text or tables."""

    size: int = 4
    vector: bool = False
    text: bool = False
    table: str = ""


_TEXT: Final = _Field(1, vector=True, text=True)
_BYTES: Final = _Field(1, vector=True)
_INTS: Final = _Field(4, vector=True)
_LONGS: Final = _Field(8, vector=True)


def _tables(name: str) -> _Field:
    return _Field(4, vector=True, table=name)


_SCHEMA: Final[Mapping[str, Mapping[int, _Field]]] = {
    "Model": {
        0: _Field(), 1: _tables("OperatorCode"), 2: _tables("SubGraph"), 3: _TEXT,
        4: _tables("Buffer"), 5: _INTS, 6: _tables("Metadata"), 7: _tables("Signature"),
    },
    "OperatorCode": {0: _Field(1), 1: _TEXT, 2: _Field(), 3: _Field()},
    "SubGraph": {0: _tables("Tensor"), 1: _INTS, 2: _INTS, 3: _tables("Operator"), 4: _TEXT},
    "Tensor": {
        0: _INTS, 1: _Field(1), 2: _Field(), 3: _TEXT, 4: _Field(table="Quantization"),
        5: _Field(1), 7: _INTS, 8: _Field(1),
    },
    "Quantization": {0: _INTS, 1: _INTS, 2: _INTS, 3: _LONGS, 4: _Field(1), 6: _Field()},
    "Operator": {
        0: _Field(), 1: _INTS, 2: _INTS, 3: _Field(1), 5: _BYTES, 6: _Field(1), 7: _BYTES,
        8: _INTS, 9: _Field(8), 10: _Field(8), 11: _Field(1),
    },
    "Buffer": {0: _BYTES, 1: _Field(8), 2: _Field(8)},
    "Metadata": {0: _TEXT, 1: _Field()},
    "Signature": {0: _tables("TensorMap"), 1: _tables("TensorMap"), 2: _TEXT, 3: _TEXT},
    "TensorMap": {0: _TEXT, 1: _Field()},
}  # fmt: skip
"""The tables of a TFLite file, each with its fields by number."""

_OPTIONS: Final[Mapping[int, Mapping[int, _Field]]] = {
    3: {0: _INTS, 1: _INTS}, 8: {5: _INTS}, 17: {0: _INTS}, 30: {0: _INTS},
    111: {0: _TEXT, 1: _TEXT}, 115: {0: _INTS},
}  # fmt: skip
"""The fields of operators' options, by the type of the options, that are more than a scalar."""

_DIVISORS: Final[Mapping[str, tuple[int, Mapping[int, int]]]] = {
    "CONV_2D": (1, {1: 0, 2: 0, 4: 1, 5: 1}),
    "DEPTHWISE_CONV_2D": (2, {1: 0, 2: 0, 3: 0, 5: 1, 6: 1}),
    "AVERAGE_POOL_2D": (5, {1: 0, 2: 0, 3: 0, 4: 0}),
    "MAX_POOL_2D": (5, {1: 0, 2: 0, 3: 0, 4: 0}),
    "TRANSPOSE_CONV": (49, {1: 0, 2: 0}),
    "DEPTH_TO_SPACE": (94, {0: 0}),
    "builtin 26": (19, {0: 0}),
    "SPLIT": (35, {0: 0}),
}
"""Operators that divide by their options: the options' type, and those fields' defaults."""


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
    return Counter(operator.name for _, found in _graphs(_Reader(data, name)) for operator in found)


def check(data: bytes, *, name: str = "the model") -> Counter[str]:
    """Refuse a file that a runtime may take and die of; return what `operators` returns.

    Beyond `operators`, which sees that every reference stays inside the file, this sees that
    operators read what is there by then, and do not divide by zero. Raises ModelFileError.
    """
    reader = _Reader(data, name)
    counts: Counter[str] = Counter()
    buffers: list[int] | None = None
    for subgraph, found in _graphs(reader):
        if buffers is None:
            slots = reader.table_vector(reader.root, _MODEL_BUFFERS)
            buffers = [reader.buffer_bytes(reader.indirect(slot)) for slot in slots]
        _check_graph(reader, subgraph, found, buffers)
        counts.update(operator.name for operator in found)
    return counts


def _graphs(reader: "_Reader") -> Iterator[tuple[int, list[_Operator]]]:
    """Yield every subgraph of a whole file with its operators; raises ModelFileError."""
    reader.check_table(reader.root, "Model")
    codes = reader.operator_codes()
    buffers = len(reader.table_vector(reader.root, _MODEL_BUFFERS))
    for subgraph in reader.subgraphs():
        for slot in reader.table_vector(subgraph, _SUBGRAPH_TENSORS):
            if reader.scalar(reader.indirect(slot), _TENSOR_BUFFER, "<I") >= buffers:
                raise reader.damaged(slot)
        slots = reader.table_vector(subgraph, _SUBGRAPH_OPERATORS)
        yield subgraph, [reader.operator(slot, codes) for slot in slots]


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


def _check_graph(
    reader: "_Reader", subgraph: int, operators: list[_Operator], buffers: list[int]
) -> None:
    """Raise ModelFileError for what no reference shows: operators that would read nothing.

    `buffers` are the sizes of the weights.
    """
    tensors = [reader.indirect(slot) for slot in reader.table_vector(subgraph, _SUBGRAPH_TENSORS)]
    made = {
        number
        for number, tensor in enumerate(tensors)
        if _check_tensor(reader, tensor, number, buffers)
    }
    inputs = reader.ints(subgraph, _SUBGRAPH_INPUTS)
    outputs = reader.ints(subgraph, _SUBGRAPH_OUTPUTS)
    for tensor in (*inputs, *outputs):
        if not 0 <= tensor < len(tensors):
            raise reader.flaw(f"tensor {tensor} of {len(tensors)} is an input or output")
    made.update(inputs)
    for number, operator in enumerate(operators):
        what = f"operator {number} ({operator.name})"
        if operator.name in _CONTROL_FLOW:
            raise reader.flaw(f"{what} runs other subgraphs")
        for place, tensor in enumerate(operator.inputs):
            # -1 stands for an input that is left out, and no operator can do without its first two.
            if tensor not in made and (tensor != -1 or place < 2):
                raise reader.flaw(f"{what} reads tensor {tensor}, which nothing before it makes")
        for tensor in operator.outputs:
            if tensor in made or not 0 <= tensor < len(tensors):
                raise reader.flaw(f"{what} makes tensor {tensor}, which is made already or is none")
        made.update(operator.outputs)
        _check_divisors(reader, operator, what)
    for tensor in outputs:
        if tensor not in made:
            raise reader.flaw(f"nothing makes the output tensor {tensor}")


def _check_tensor(reader: "_Reader", tensor: int, number: int, buffers: list[int]) -> bool:
    """Check a tensor's type and size; return whether it is there before any operator ran."""
    weights = buffers[reader.scalar(tensor, _TENSOR_BUFFER, "<I")]
    kind = reader.scalar(tensor, _TENSOR_TYPE, "<b")
    element_bytes = _TYPE_BYTES.get(kind)
    if element_bytes is None:
        raise reader.flaw(f"tensor {number} is not made of numbers")
    if reader.field(tensor, _TENSOR_SPARSITY) is not None:
        raise reader.flaw(f"tensor {number} is sparse")
    _check_quantization(reader, tensor, f"tensor {number}", kind)
    shape = reader.ints(tensor, _TENSOR_SHAPE)
    if len(shape) > MAX_RANK:
        raise reader.flaw(f"tensor {number} has {len(shape)} dimensions")
    # An extent that is known only when the model runs may be written as -1.
    size = math.prod(1 if extent < 0 else extent for extent in shape) * element_bytes
    if size > MAX_TENSOR_BYTES:
        raise reader.flaw(f"tensor {number} has {size:,.0f} bytes")
    if 0 < weights < size:
        raise reader.flaw(f"tensor {number} has {weights} of its {size:,.0f} bytes")
    variable = reader.scalar(tensor, _TENSOR_VARIABLE, "<b")
    return bool(weights or not size or variable)


def _check_quantization(reader: "_Reader", tensor: int, what: str, kind: int) -> None:
    """Check the numbers that XNNPACK turns into tables and shifts without looking at them."""
    field = reader.field(tensor, _TENSOR_QUANTIZATION)
    if field is None:
        return
    quantization = reader.indirect(field)
    for scale in reader.values(quantization, _QUANTIZATION_SCALE, "f"):
        if scale and not _SMALLEST_NORMAL <= scale < math.inf:
            raise reader.flaw(f"{what} is quantized with scale {scale:g}")
    zero_points = _ZERO_POINTS.get(kind, range(-(1 << 15), 1 << 16))
    for zero_point in reader.values(quantization, _QUANTIZATION_ZERO_POINT, "q"):
        if zero_point not in zero_points:
            raise reader.flaw(f"{what} is quantized with zero point {zero_point}")


def _check_divisors(reader: "_Reader", operator: _Operator, what: str) -> None:
    if operator.name not in _DIVISORS:
        return
    kind, fields = _DIVISORS[operator.name]
    table = reader.indirect(operator.slot)
    if reader.scalar(table, _OPERATOR_OPTIONS_TYPE, "<B") != kind:
        raise reader.flaw(f"{what} has another operator's options")
    options = reader.indirect(reader.required(table, _OPERATOR_OPTIONS))
    for number, default in fields.items():
        if reader.scalar(options, number, "<i", default) < 1:
            raise reader.flaw(f"{what} has a stride or size below 1")


class _Reader:
    """Walks a flatbuffer with every step checked; positions are bytes from its start."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        # Many references to one long thing would make a small file take hours to read.
        self._effort = 4096 + 8 * len(data)
        if data[4:8] != _IDENTIFIER:
            raise ModelFileError(
                f"{name}: expected a TFLite file, which has TFL3 at its fifth byte, got "
                f"{len(data)} bytes that start with {data[:8]!r}; fetch or build it again"
            )
        self.root = self.indirect(0)

    def subgraphs(self) -> list[int]:
        """Return the positions of the subgraph tables."""
        return [self.indirect(slot) for slot in self.table_vector(self.root, _MODEL_SUBGRAPHS)]

    def check_table(self, table: int, kind: str) -> None:
        """Raise ModelFileError unless a table, and all that it refers to, lies inside the file."""
        self._check_fields(table, _SCHEMA[kind])
        if kind == "Buffer":
            # Newer writers put weights behind the flatbuffer, as bytes that no vector describes.
            self.buffer_bytes(table)
        if kind == "Operator":
            self._check_options(table)

    def buffer_bytes(self, buffer: int) -> int:
        """Return how many bytes of weights a buffer holds."""
        data = self.field(buffer, _BUFFER_DATA)
        if data is not None:
            return self._vector(data, 1)[1]
        offset, size = (self.field(buffer, n) for n in (_BUFFER_OFFSET, _BUFFER_SIZE))
        if offset is None or size is None:
            return 0
        length = self._unpack("<Q", size)
        end = self._unpack("<Q", offset) + length
        if end > len(self._data):
            raise self.damaged(end)
        return length

    def scalar(self, table: int, number: int, layout: str, default: int = 0) -> int:
        """Return a scalar field, or its default where the table has none."""
        field = self.field(table, number)
        return default if field is None else self._unpack(layout, field)

    def flaw(self, what: str) -> ModelFileError:
        """Return the error for a file that is whole and yet not to be given to a runtime."""
        return ModelFileError(
            f"{self._name}: expected a TFLite file that a runtime can take, got one in which "
            f"{what}; it is damaged or no pose model, fetch or build it again"
        )

    def _spend(self, effort_bytes: int) -> None:
        self._effort -= effort_bytes
        if self._effort < 0:
            raise self.flaw("many references lead to the same bytes")

    def _check_fields(self, table: int, fields: Mapping[int, _Field]) -> None:
        self._spend(4)
        vtable = table - self._unpack("<i", table)
        vtable_bytes, table_bytes = self._unpack("<H", vtable), self._unpack("<H", vtable + 2)
        if table + table_bytes > len(self._data):
            raise self.damaged(table + table_bytes)
        if vtable_bytes % 2:
            raise self.damaged(vtable)
        for number in range((vtable_bytes - 4) // 2):
            field = self.field(table, number)
            if field is None:
                continue
            expected = fields.get(number, _Field(1))
            if not 4 <= field - table <= table_bytes - expected.size * (not expected.vector):
                raise self.damaged(field)
            if expected.table and not expected.vector:
                self.check_table(self.indirect(field), expected.table)
            if not expected.vector:
                continue
            start, length = self._vector(field, expected.size)
            if expected.text:
                self._check_text(start, length)
            if expected.table:
                for entry in range(start, start + 4 * length, 4):
                    self.check_table(self.indirect(entry), expected.table)

    def _check_text(self, start: int, length: int) -> None:
        self._spend(length)
        text = self._data[start : start + length + 1]
        try:
            printable = text[:length].decode().isprintable()
        except UnicodeDecodeError as error:
            raise self.damaged(start + error.start) from None
        if not printable:
            # Names go to logs and terminals, also in the words of a runtime.
            raise self.flaw("a name has control characters in it")
        if text[length:] != b"\0":
            # Runtimes read a name up to the zero byte that should follow it.
            raise self.damaged(start + length)

    def _check_options(self, operator: int) -> None:
        options = self.field(operator, _OPERATOR_OPTIONS)
        if options is not None:
            kind = self.scalar(operator, _OPERATOR_OPTIONS_TYPE, "<B")
            self._check_fields(self.indirect(options), _OPTIONS.get(kind, {}))
        if self.field(operator, _OPERATOR_OPTIONS_2) is not None:
            raise self.flaw("an operator of StableHLO carries options that cannot be checked")

    def operator_codes(self) -> list[str]:
        """Return the operator names that operators refer to by index."""
        names: list[str] = []
        for slot in self.table_vector(self.root, _MODEL_OPERATOR_CODES):
            table = self.indirect(slot)
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
        table = self.indirect(slot)
        field = self.field(table, _OPERATOR_CODE)
        index = self._unpack("<I", field) if field is not None else 0
        if index >= len(codes):
            raise self.damaged(table)
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
            raise self.damaged(table)
        return field

    def ints(self, table: int, number: int) -> tuple[int, ...]:
        """Return a field that is a vector of int32."""
        return self.values(table, number, "i")

    def values(self, table: int, number: int, layout: str) -> tuple[Any, ...]:
        """Return a field that is a vector of numbers; `layout` is one of them in `struct`."""
        field = self.field(table, number)
        if field is None:
            return ()
        size = struct.calcsize(f"<{layout}")
        start, length = self._vector(field, size)
        self._spend(length * size)
        return struct.unpack_from(f"<{length}{layout}", self._data, start)

    def table_vector(self, table: int, number: int) -> list[int]:
        """Return where the entries of a vector of tables are, each an offset to its table."""
        field = self.field(table, number)
        if field is None:
            return []
        start, length = self._vector(field, 4)
        self._spend(4 * length)
        return [start + 4 * index for index in range(length)]

    def _vector(self, field: int, entry_bytes: int) -> tuple[int, int]:
        position = self.indirect(field)
        length = self._unpack("<I", position)
        if position + 4 + length * entry_bytes > len(self._data):
            raise self.damaged(position)
        return position + 4, length

    def indirect(self, position: int) -> int:
        """Return where the offset at a position points to."""
        return position + self._unpack("<I", position)

    def _unpack(self, layout: str, position: int) -> int:
        if position < 0 or position + struct.calcsize(layout) > len(self._data):
            raise self.damaged(position)
        value: int = struct.unpack_from(layout, self._data, position)[0]
        return value

    def damaged(self, position: int) -> ModelFileError:
        """Return the error for a reference that leads out of the file."""
        return ModelFileError(
            f"{self._name}: expected a whole TFLite file, got {len(self._data)} bytes with a "
            f"broken reference to byte {position}; it is truncated or damaged, fetch or build "
            "it again"
        )
