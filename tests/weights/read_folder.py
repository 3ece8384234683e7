"""A program: reads every file of a folder and prints, as JSON, how each ended, after how many seconds of processor time, and by how many
MiB the process's peak memory grew."""

import json
import resource
import sys
import time
from pathlib import Path

from numbanet.errors import CheckpointError
from numbanet.weights import load_weights


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


results = {}
for path in Path(sys.argv[1]).iterdir():
    before, begin = peak(), time.process_time()
    try:
        load_weights(path)
        ended = "read"
    except CheckpointError as error:
        ended = str(error)
    results[path.name] = ended, time.process_time() - begin, peak() - before
print(json.dumps(results))
