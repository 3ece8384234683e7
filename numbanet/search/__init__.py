"""Finding similar pictures: vectors of pictures, an index of them on disk, clusters, near-duplicates, and who is on a picture."""

from __future__ import annotations

import importlib

# Where each public name is; loaded when it is first used.
_WHERE = {
    "Embedder": "embedding", "Features": "embedding", "open_embedder": "embedding",
    "embed_files": "reading", "Embedded": "reading",
    "ImageIndex": "index", "Hit": "index", "is_index": "index",
    "update_index": "updating", "Updated": "updating",
    "KMeans": "clustering", "MiniBatchKMeans": "clustering", "normalized_mutual_info_score": "clustering",
    "find_duplicates": "duplicates", "similar_pairs": "duplicates",
    "identify": "identification", "Identified": "identification", "face_reader": "identification", "entry_name": "identification",
}

__all__ = list(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'numbanet.search' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"numbanet.search.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
