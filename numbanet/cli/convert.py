"""numbanet convert"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

EXAMPLE = "  numbanet convert resnet50.pth resnet50.safetensors --model resnet50\n  numbanet convert weights.safetensors half.npz --half"
SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")


def configure(parser) -> None:
    parser.add_argument("source", metavar="IN", help="weights; their content tells the format")
    parser.add_argument("target", metavar="OUT", help=f"the file to write: {', '.join(SUFFIXES)}")
    parser.add_argument("--model", metavar="NAME",
                        help="check that the weights fit this network, and store its name and preprocessing with them")
    parser.add_argument("--half", action="store_true", help="store floating-point numbers as float16")


def run(arguments) -> int:
    from numbanet.errors import UsageError
    from numbanet.weights import load_weights, save_weights
    target = Path(arguments.target)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"OUT: expected a name that ends in {', '.join(SUFFIXES)}, received {target.name}")
    arrays, metadata = load_weights(arguments.source)
    if arguments.model is not None:
        arrays, metadata = _fitted(arguments.model, arrays, metadata)
    if arguments.half:
        arrays = {name: _halved(name, array) for name, array in arrays.items()}
    save_weights(target, arrays, metadata)
    _report(Path(arguments.source), target, arrays, metadata)
    return 0


def _fitted(name: str, arrays: dict, metadata: dict) -> tuple[dict, dict]:
    """The arrays under the model's own names, and metadata that are enough to predict with it."""
    from numbanet.nn.matching import without_prefix
    from numbanet.train.preprocessing import Preprocessing
    from numbanet.zoo import create_model, model_info
    info = model_info(name)
    state = create_model(name, weights=(arrays, metadata)).state_dict()
    arrays = without_prefix(arrays, state)
    return arrays, {"preprocessing": Preprocessing.for_model(info).as_metadata()} | metadata | {"model": name}


def _halved(name: str, array):
    import numpy as np

    from numbanet.dtypes import is_floating_point
    from numbanet.errors import UsageError
    if not is_floating_point(array.dtype):
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if np.isinf(half).sum() != np.isinf(array).sum():
        raise UsageError(f"--half: {name} has numbers beyond 65504, which float16 cannot hold; leave --half out")
    return half


def _report(source: Path, target: Path, arrays: dict, metadata: dict) -> None:
    kinds = Counter(array.dtype.name for array in arrays.values())
    print(f"read     {_short(source)}, {source.stat().st_size / 1e6:.1f} MB")
    print(f"wrote    {_short(target)}, {target.stat().st_size / 1e6:.1f} MB")
    print(f"arrays   {len(arrays)} ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common(4))})")
    print(f"numbers  {sum(array.size for array in arrays.values()):,}")
    if "model" in metadata:
        print(f"model    {metadata['model']}")


def _short(path: Path, width: int = 55) -> str:
    text = str(path)
    return text if len(text) <= width else f"...{text[3 - width:]}"
