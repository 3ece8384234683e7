"""Files made to harm or to deceive, each with a part of the message that it must lead to."""

import io
import json
import struct
import zipfile

import numpy as np

MIB = 1 << 20


# safetensors

def safetensors(header, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, shape=None, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


ONE = entry(0, 4)
SAFETENSORS = {
    "a longer header than file": (struct.pack("<Q", 500) + b'{"w":{}}', "a header of 500 bytes in a file of 16"),
    "a header of 2^63 bytes": (struct.pack("<Q", 1 << 63) + b'{"w":{}}', "at most 4194304 are read"),
    "no JSON": (safetensors(b'{"w": }'), "the header cannot be read"),
    "JSON in UTF-16": (safetensors(b'{\0"\0w\0"\0:\0'), "the header cannot be read"),
    "no object": (safetensors(b' {"w": {}}'), "neither safetensors"),
    "nested lists": (safetensors(b'{"w":' + b"[" * 3 * MIB), "the header cannot be read"),
    "millions of lists": (safetensors(b'{"w":[' + b"[]," * (4 * MIB // 3 - 10) + b"[]]}"), "w has no dtype"),
    "twice the same name": (safetensors(b'{"w":%s,"w":%s}' % ((json.dumps(ONE).encode(),) * 2), bytes(4)), "'w' occurs twice"),
    "an unknown dtype": (safetensors({"w": entry(0, 4, dtype="F4_E9")}, bytes(4)), "w has the dtype 'F4_E9'"),
    "a dtype that is a list": (safetensors({"w": entry(0, 4, dtype=["F32"])}, bytes(4)), "w has the dtype"),
    "another size than shape": (safetensors({"w": entry(0, 4, [3])}, bytes(4)), "does not take the 4 bytes"),
    "another dtype than size": (safetensors({"w": entry(0, 4, dtype="F64")}, bytes(4)), "does not take the 4 bytes"),
    "an overlap": (safetensors({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "a gap or an overlap"),
    "a gap": (safetensors({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "a gap or an overlap"),
    "twice the same bytes": (safetensors({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)), "a gap or an overlap"),
    "bytes left over": (safetensors({"a": ONE}, bytes(5)), "take 4 bytes, the file has 5"),
    "too few bytes": (safetensors({"a": ONE}, bytes(3)), "take 4 bytes, the file has 3"),
    "falling offsets": (safetensors({"a": entry(4, 0, [1])}, bytes(4)), "two rising numbers"),
    "negative numbers": (safetensors({"a": entry(0, 4, [-1])}, bytes(4)), "the number -1"),
    "minus zero": (safetensors(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'), "the number -0"),
    "fractions": (safetensors({"a": entry(0, 4, [1.0])}, bytes(4)), "the number 1.0"),
    "booleans as numbers": (safetensors({"a": entry(0, 4, [True])}, bytes(4)), "shape expects a list of numbers"),
    "2^80 elements": (safetensors({"a": entry(0, 4, [1 << 40, 1 << 40])}, bytes(4)), "impossible shape"),
    "2^80 elements of nothing": (safetensors({"a": entry(0, 0, [1 << 40, 0, 1 << 40])}), "impossible shape"),
    "many dimensions": (safetensors({"a": entry(0, 4, [1] * 100)}, bytes(4)), "100 dimensions"),
    "half a surrogate": (safetensors(b'{"\\ud800":%s}' % json.dumps(ONE).encode(), bytes(4)), "the header cannot be read"),
    "metadata that is no text": (safetensors({"__metadata__": {"a": 1}}), "a map of strings"),
    "booleans of 2": (safetensors({"a": entry(0, 1, [1], "BOOL")}, b"\2"), "bytes other than 0 and 1"),
}


# zip archives

def archive(members: dict, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file.getvalue()


def npy(array, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=allow_pickle)
    return file.getvalue()


def npy_header(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + data


def altered(data: bytes, signature: bytes, offset: int, value: bytes, index: int = 0) -> bytes:
    """`data` with `value` at `offset` behind the signature that stands there as number `index`."""
    at = -1
    for _ in range(index + 1):
        at = data.index(signature, at + 1)
    return data[:at + offset] + value + data[at + offset + len(value):]


TWO = archive({"a.npy": npy([1.0]), "b.npy": npy([2.0])})
BOMB = archive({"w.npy": bytes(257 * MIB)}, zipfile.ZIP_DEFLATED)
SQUEEZED = archive({"w.npy": npy(np.zeros(1000))}, zipfile.ZIP_DEFLATED)
ZIPS = {
    "a zip bomb": (BOMB, "that expands to 269484032"),
    "a zip bomb that says it is small": (altered(BOMB, b"PK\1\2", 24, struct.pack("<L", 1000)), "does not have the 1000 bytes"),
    "a size beyond the data": (altered(SQUEEZED, b"PK\1\2", 24, struct.pack("<L", 1 << 27)), "does not have the 134217728 bytes"),
    "overlapping members": (altered(altered(TWO, b"PK\1\2", 42, bytes(4), 1), b"PK\1\2", 46, b"a", 1), "occurs twice"),
    "a member outside": (altered(TWO, b"PK\1\2", 42, struct.pack("<L", 1 << 30), 1), "it is truncated"),
    "encryption": (altered(TWO, b"PK\1\2", 8, b"\1"), "is encrypted"),
    "another method": (altered(TWO, b"PK\1\2", 10, b"\x0c"), "not compressed by deflate"),
    "a wrong checksum": (altered(TWO, b"PK\1\2", 16, bytes(4)), "does not have the checksum"),
    "65,000 members more": (altered(TWO, b"PK\5\6", 8, b"\xfd\xfd\xfd\xfd"), "65021 members; at most 20000"),
    "a part of several": (altered(TWO, b"PK\5\6", 4, b"\1"), "one part of several"),
    "bytes at the end": (TWO + b"more", "bytes follow its end"),
    "no directory": (TWO[:TWO.index(b"PK\5\6")], "truncated"),
    "no arrays": (archive({"a.txt": b"text"}), "'a.txt' is not a .npy file"),
    "nothing in it": (b"PK\3\4" + b"PK\5\6" + bytes(12) + b"\4" + bytes(5), "a zip file without arrays"),
    "pickled objects": (archive({"a.npy": npy(np.array([{}]), True)}), "holds object; weights are arrays of numbers"),
    "a header of code": (archive({"a.npy": npy_header("__import__('os').system('touch executed')\n")}), "not a whole .npy file"),
    "a deep header": (archive({"a.npy": npy_header("(" * 9000)}), "not a whole .npy file"),
    "2^80 elements in .npy": (archive({"a.npy": npy_header(f"{{'descr':'<f4','fortran_order':False,'shape':({1 << 40},{1 << 40})}}\n")}),
                              "impossible shape"),
    "a structured array": (archive({"a.npy": npy(np.zeros(2, [("a", "<f4"), ("b", "<i4")]))}), "weights are arrays of numbers"),
    "texts": (archive({"a.npy": npy(["a", "b"])}), "weights are arrays of numbers"),
    "a short array": (archive({"a.npy": npy([1.0, 2.0])[:-1]}), "does not take 15 bytes"),
}


# PyTorch

def torch_zip(pickle: bytes, **members: bytes) -> bytes:
    return archive({"m/data.pkl": pickle, "m/version": b"3\n", **{f"m/{name.replace('_', '/')}": data for name, data in members.items()}})


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(count: int = 1, offset: int = 0, shape=(1,), strides=(1,), storage: bytes = b"ctorch\nFloatStorage\n", key: str = "0") -> bytes:
    def integers(values):
        return b"(" + b"".join(b"\x8a\x09" + int(v).to_bytes(9, "little", signed=True) for v in values) + b"t"
    return (b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + storage + text(key) + text("cpu") + integers([count])[1:-1]
            + b"tQ" + integers([offset])[1:-1] + integers(shape) + integers(strides) + b"\x89ccollections\nOrderedDict\n)RtR")


def state(*items: tuple[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in items) + b"u."


PRIME = (1 << 61) - 1           # Python's hash of an integer is its remainder
COMMAND = text("touch executed")
PICKLES = {
    "os.system": (b"\x80\x02cos\nsystem\n" + COMMAND + b"\x85R.", "the file holds os.system"),
    "posix.system": (b"\x80\x02cposix\nsystem\n" + COMMAND + b"\x85R.", "the file holds posix.system"),
    "eval": (b"\x80\x02cbuiltins\neval\n" + text("open('executed', 'w')") + b"\x85R.", "the file holds builtins.eval"),
    "a global from the stack": (b"\x80\x04\x8c\x02os\x8c\x06system\x93" + COMMAND + b"\x85R.", "the file holds os.system"),
    "a global in an older protocol": (b"\x80\x02" + text("os") + text("system") + b"\x93.", "opcode 0x93"),
    "INST": (b"\x80\x02(" + COMMAND + b"ios\nsystem\n.", "INST"),
    "OBJ": (b"\x80\x02(cos\nsystem\n" + COMMAND + b"o.", "os.system"),
    "NEWOBJ": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "BUILD": (state(("w", tensor()))[:-1] + b"}b.", "BUILD"),
    "a call of a text": (b"\x80\x02" + text("os.system") + COMMAND + b"\x85R.", "a call of what is no function"),
    "a module": (b"\x80\x02c__main__\nNet\n)\x81}b.", "the file holds __main__.Net.*save model.state_dict"),
    "a class of PyTorch": (b"\x80\x02ctorch.nn.modules.container\nSequential\n)\x81}b.", "torch.nn.modules.container.Sequential"),
    "protocol 5": (b"\x80\x05}.", "protocol 5"),
    "protocol 0": (b"(dp0\n.", "DICT"),
    "an empty stack": (b"\x80\x02.", "empty stack"),
    "a stack below its mark": (b"\x80\x02}(a.", "empty stack"),
    "no mark": (b"\x80\x02}u.", "lacks a mark"),
    "a name for nothing": (b"\x80\x02q\0}.", "a name to no object"),
    "no memo": (b"\x80\x02h\x07.", "never stored"),
    "a key alone": (b"\x80\x02}(" + text("w") + b"u.", "a key without value"),
    "no end": (b"\x80\x02}", "truncated"),
    "a text of 4 GB": (b"\x80\x02X\xff\xff\xff\xff.", "a string of 4294967295 bytes"),
    "a number of 4 GB": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "LONG4"),
    "deep lists": (b"\x80\x02" + b"]" * 240_000 + b"a" * 239_999 + b".", "the file holds a list"),
    "endless lists": (b"\x80\x02" + b"]" * 1_000_000 + b".", "more than 500000 opcodes"),
    "endless marks": (b"\x80\x02" + b"(" * 1_000_000 + b".", "more than 500000 opcodes"),
    "tuples of tuples as a key": (b"\x80\x02}K\1\x85" + b"q\0h\0\x86" * 60 + b"K\1s.", "a key of type tuple"),
    "colliding keys": (b"\x80\x02}(" + b"".join(b"\x8a\x0a" + (i * PRIME).to_bytes(10, "little") + b"N" for i in range(50_000)) + b"u.",
                       "a key of type int"),
    "a list that holds itself": (b"\x80\x02]q\0h\0a.", "the file holds a list"),
    "no state": (b"\x80\x02}" + text("epoch") + b"K\1s.", "the file holds a dict of epoch; expected a state_dict"),
    "numbers as names": (b"\x80\x02}K\1" + tensor() + b"s.", "tensors under numbers"),
    "a single tensor": (b"\x80\x02" + tensor() + b".", "the file holds a single tensor"),
    "a tensor beyond its storage": (state(("w", tensor(offset=1))), "ends beyond its storage"),
    "strides beyond the storage": (state(("w", tensor(shape=(1, 2), strides=(1, 1 << 60)))), "ends beyond its storage"),
    "negative strides": (state(("w", tensor(shape=(2,), strides=(-1,)))), "not all numbers from 0"),
    "a negative offset": (state(("w", tensor(offset=-1))), "not all numbers from 0"),
    "2^66 elements": (state(("w", tensor(shape=(1 << 33, 1 << 33), strides=(0, 0)))), "impossible shape"),
    "a terabyte over 4 bytes": (state(("w", tensor(shape=(1 << 38,), strides=(0,)))), "share their elements"),
    "many views": (state(*[(f"w{i}", tensor(shape=(1 << 20,), strides=(0,))) for i in range(100)]), "share their elements"),
    "a shape whose text is endless": (b"\x80\x02K\1\x85" + b"q\0h\0\x86" * 60 + b"q\1" + tensor().partition(b"tQ")[0]
                                      + b"tQK\0h\1h\1\x89NtR.", "not all numbers from 0"),
    "ranks that differ": (state(("w", tensor(shape=(1, 1), strides=(1,)))), "in another way than PyTorch does"),
    "too few arguments": (state(("w", b"ctorch._utils\n_rebuild_tensor_v2\n)R")), "in another way than PyTorch does"),
    "a storage of complex numbers": (state(("w", tensor(storage=b"ctorch\nComplexFloatStorage\n"))), "torch.ComplexFloatStorage"),
    "a storage that is no class": (state(("w", tensor(storage=text("float32")))), "in another way than PyTorch does"),
    "a larger storage than the file's": (state(("w", tensor(1 << 40))), "storage '0' has 4 bytes"),
    "a storage that is missing": (state(("w", tensor(key="../../secret"))), "it has no 'm/data/../../secret'"),
    "two views of a storage's type": (state(("a", tensor()), ("b", tensor(storage=b"ctorch\nIntStorage\n"))), "described in two ways"),
}
TORCH = {name: (torch_zip(pickle, data_0=bytes(4)), message) for name, (pickle, message) in PICKLES.items()}
GOOD = state(("w", tensor()))
TORCH |= {
    "no version": (archive({"m/data.pkl": GOOD, "m/data/0": bytes(4)}), "it has no 'm/version'"),
    "version 99": (archive({"m/data.pkl": GOOD, "m/data/0": bytes(4), "m/version": b"99\n"}), "version b'99"),
    "endless metadata": (torch_zip(GOOD, data_0=bytes(4), **{"extra_numbanet.json": b"[]," * 2 * MIB}), "metadata of 6291456 bytes"),
    "two archives": (archive({"a/x": b"", "b/data.pkl": GOOD}), "it has no 'a/data.pkl'"),
    "TorchScript": (torch_zip(GOOD, constants_pkl=b"").replace(b"constants/pkl", b"constants.pkl"), "a TorchScript program"),
    "an unknown byte order": (torch_zip(GOOD, data_0=bytes(4), byteorder=b"middle"), "byte order b'middle'"),
}

_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_START = _MAGIC + b"\x80\x02M\xe9\x03." + b"\x80\x02}" + text("little_endian") + b"\x88s."
_KEYS = b"\x80\x02](" + text("0") + b"e."
LEGACY_GOOD = _START + GOOD + _KEYS + struct.pack("<qf", 1, 7.0)
LEGACY = {
    "a legacy version": (_MAGIC + b"\x80\x02K\1." + LEGACY_GOOD[len(_MAGIC) + 6:], "unknown version"),
    "a legacy file of code": (_START + b"\x80\x02cos\nsystem\n" + COMMAND + b"\x85R.", "the file holds os.system"),
    "code in a legacy start": (_MAGIC + b"\x80\x02cos\nsystem\n" + COMMAND + b"\x85R.", "the file holds os.system"),
    "a storage in a legacy start": (_MAGIC + b"\x80\x02" + tensor() + b".", "BINPERSID"),
    "legacy keys that do not fit": (_START + GOOD + b"\x80\x02]." + bytes(12), "its list of storages does not fit"),
    "a legacy size that does not fit": (_START + GOOD + _KEYS + struct.pack("<qf", 2, 7.0), "truncated or contradicts its size"),
    "a legacy storage cut short": (LEGACY_GOOD[:-1], "truncated or contradicts its size"),
}

EVERY = {**{f"safetensors: {name}": case for name, case in SAFETENSORS.items()}, **{f"zip: {name}": case for name, case in ZIPS.items()},
         **{f"torch: {name}": case for name, case in TORCH.items()}, **{f"torch: {name}": case for name, case in LEGACY.items()}}
