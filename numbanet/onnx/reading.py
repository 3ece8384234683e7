"""From bytes to a checked ONNX model: nothing is allocated before its size is known to be there."""

from __future__ import annotations

import math
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np

from numbanet.errors import BackendError, OnnxError
from numbanet.onnx.external_data import map_external

MAX_FILE_BYTES = (1 << 31) - 1      # of a protocol buffer
MAX_NODES = 200_000                 # after functions were inlined
MAX_RANK = 64                       # NumPy's
STUBBED_BYTES = 1 << 16             # larger tensors are left out of what the checker of the onnx package sees


def onnx_package():
    """The `onnx` package, or an error that says how to get it."""
    try:
        import onnx
        import onnx.checker
        import onnx.inliner
    except ImportError as error:
        raise BackendError("onnx: the package 'onnx' is not installed; pip install onnx") from error
    return onnx


def read_model(source):
    """A ModelProto and the folder of its external data.

    Parameters
    ----------
    source : path, bytes or ModelProto

    Raises
    ------
    OnnxError
        Not an ONNX model, or one that contradicts itself.
    """
    onnx = onnx_package()
    if isinstance(source, onnx.ModelProto):
        return source, None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _parsed(onnx, source, "the bytes"), None
    path = Path(source)
    if not path.is_file():
        raise OnnxError(f"onnx: {path} does not exist" if not path.exists() else f"onnx: {path} is not a file")
    size = path.stat().st_size
    if not 0 < size <= MAX_FILE_BYTES:
        raise OnnxError(f"onnx: {path} has {size} bytes, a protocol buffer at most {MAX_FILE_BYTES}; "
                        f"expected {'large tensors as external data' if size else 'a file that is not empty'}")
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped, memoryview(mapped) as data:
        return _parsed(onnx, data, str(path)), path.resolve().parent


def _parsed(onnx, data, what: str):
    from google.protobuf.message import DecodeError
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)         # from a mapping: garbage is refused before it is read
    except (DecodeError, RuntimeError, ValueError) as error:
        raise OnnxError(f"onnx: {what} cannot be read as an ONNX model ({first_line(error)})") from None
    if not model.HasField("graph"):
        raise OnnxError(f"onnx: {what} cannot be read as an ONNX model (there is no graph in it)")
    _check_text(model, what)
    return model


def _check_text(message, what: str) -> None:
    """Refuse names that are not UTF-8, which the parser hands on as bytes."""
    waiting = [message]
    while waiting:
        for field, value in waiting.pop().ListFields():
            values = value if _is_repeated(field) else (value,)
            if field.message_type is not None:
                waiting.extend(values)
            elif field.type == field.TYPE_STRING and any(isinstance(text, bytes) for text in values):
                raise OnnxError(f"onnx: {what} cannot be read as an ONNX model ({field.full_name} is not text in UTF-8)")


def _is_repeated(field) -> bool:
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def first_line(error) -> str:
    """The first line of a message of another library, shortened."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text if len(text) <= 200 else f"{text[:200]}..."


def opsets(model) -> dict[str, int]:
    """Domain -> opset; the standard domain is "".

    Raises
    ------
    OnnxError
        None for the standard domain, one twice, or newer than the installed onnx package knows.
    """
    onnx = onnx_package()
    found: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if found.setdefault(domain, entry.version) != entry.version:
            raise OnnxError(f"onnx: the model imports two opsets of domain {domain!r}: {found[domain]} and {entry.version}")
    newest = onnx.defs.onnx_opset_version()
    if "" not in found and model.ir_version < 3:
        found[""] = 1
    if "" in found and not 1 <= found[""] <= newest:
        raise OnnxError(f"onnx: expected an opset from 1 to {newest}, received {found['']}; "
                        "update the onnx package, or export with an older opset")
    return found


def check_with_reference(model) -> None:
    """Refuse what `onnx.checker` refuses; large tensors are checked by :func:`tensor_values` instead, without copies.

    Raises
    ------
    OnnxError
    """
    onnx = onnx_package()
    try:
        onnx.checker.check_model(_without_large_tensors(onnx, model))
    except (onnx.checker.ValidationError, RuntimeError, ValueError, TypeError) as error:
        raise OnnxError(f"onnx: the model is not valid ({first_line(error)})") from None


def _without_large_tensors(onnx, model):
    light = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy_field(light, field, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy_field(light.graph, field, value)
    for tensor in model.graph.initializer:
        large = tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.raw_data) > STUBBED_BYTES
        stub = light.graph.initializer.add()
        if large:
            stub.name, stub.data_type, stub.raw_data = tensor.name, tensor.data_type, bytes(8)
            stub.dims.append(1)
        else:
            stub.CopyFrom(tensor)
    light.graph.SetInParent()
    return light


def _copy_field(target, field, value) -> None:
    if _is_repeated(field):
        getattr(target, field.name).extend(value)
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(value)
    else:
        setattr(target, field.name, value)


# --- tensors --------------------------------------------------------------------------------------------------------

def dtype_of(element_type: int, what: str) -> np.dtype:
    """The NumPy dtype of ONNX's number of an element type.

    Raises
    ------
    OnnxError
        Strings, 4- and 2-bit types, and numbers that stand for none.
    """
    onnx = onnx_package()
    types = onnx.TensorProto
    if element_type == types.BFLOAT16:
        import ml_dtypes
        return np.dtype(ml_dtypes.bfloat16)
    plain = (types.FLOAT, types.DOUBLE, types.FLOAT16, types.INT8, types.INT16, types.INT32, types.INT64, types.UINT8, types.UINT16,
             types.UINT32, types.UINT64, types.BOOL)
    if element_type not in plain:
        name = types.DataType.Name(element_type) if element_type in types.DataType.values() else str(element_type)
        raise OnnxError(f"onnx: {what} has element type {name}; expected floats of 16 to 64 bits, integers of 8 to 64 bits, or bool")
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type))


def tensor_values(tensor, folder: Path | None) -> np.ndarray:
    """The values of a TensorProto as an array, which may be read-only.

    Raises
    ------
    OnnxError
        The element type is not supported, or the data do not have the size that the shape asks for.
    """
    onnx = onnx_package()
    what = f"tensor {tensor.name!r}"
    dtype, shape = dtype_of(tensor.data_type, what), tuple(tensor.dims)
    if any(n < 0 for n in shape) or len(shape) > MAX_RANK:
        raise OnnxError(f"onnx: {what} has shape {shape[:8]}; expected at most {MAX_RANK} sizes of at least 0")
    count = math.prod(shape)
    if tensor.HasField("segment"):
        raise OnnxError(f"onnx: {what} is stored in segments, which is not supported; save the model again")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        entries = [(entry.key, entry.value) for entry in tensor.external_data]
        return map_external(tensor.name, entries, folder, dtype, count).reshape(shape)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * dtype.itemsize:
            raise OnnxError(f"onnx: {what} of shape {shape} and {dtype} needs {count * dtype.itemsize} bytes, "
                            f"it has {len(tensor.raw_data)}")
        values = np.frombuffer(tensor.raw_data, dtype.newbyteorder("<") if dtype.itemsize > 1 and dtype.kind != "V" else dtype)
        return values.astype(dtype, copy=False).reshape(shape)
    return _typed_values(onnx, tensor, dtype, count, what).reshape(shape)


def _typed_values(onnx, tensor, dtype, count: int, what: str) -> np.ndarray:
    """Values from the field that the element type names, such as float_data."""
    field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    stored = getattr(tensor, field)
    if len(stored) != count:
        raise OnnxError(f"onnx: {what} of {count} elements has {len(stored)} in {field}")
    if dtype.itemsize == 2 and (dtype.kind == "f" or dtype.kind == "V"):        # bits of 16-bit floats, stored as integers
        return _whole(stored, np.dtype(np.uint16), what).view(dtype)
    return np.array(stored, dtype) if dtype.kind == "f" else _whole(stored, dtype, what)


def _whole(stored, dtype: np.dtype, what: str) -> np.ndarray:
    wide = np.array(stored, np.uint64 if dtype == np.uint64 else np.int64)
    values = wide.astype(dtype)
    if (values.astype(wide.dtype) != wide).any():
        raise OnnxError(f"onnx: {what} holds values that are not of {dtype}")
    return values


def attribute_value(attribute, folder: Path | None):
    """An attribute as int, float, str, array, list of these, or GraphProto.

    Raises
    ------
    OnnxError
        The kind is not supported.
    """
    kinds = onnx_package().AttributeProto
    name = f"attribute {attribute.name!r}"
    match attribute.type:
        case kinds.FLOAT:
            return attribute.f
        case kinds.INT:
            return attribute.i
        case kinds.STRING:
            return _text(attribute.s, name)
        case kinds.FLOATS:
            return list(attribute.floats)
        case kinds.INTS:
            return list(attribute.ints)
        case kinds.STRINGS:
            return [_text(s, name) for s in attribute.strings]
        case kinds.TENSOR:
            return tensor_values(attribute.t, folder)
        case kinds.GRAPH:
            return attribute.g
    raise OnnxError(f"onnx: {name} is of a kind that is not supported ({attribute.type})")


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise OnnxError(f"onnx: {name} is not text in UTF-8") from None
