"""`numbanet ARGUMENTS`, in which each process tells what it has in the end: `python -m tests.cli.parallel FOLDER ARGUMENTS`, run by
test_parallel.py."""

import hashlib
import json
import sys
from pathlib import Path

from numbanet.cli import main
from numbanet.train.training import Training

FIT = Training.fit


def fit(training):
    outcome = FIT(training)
    rank = 0 if training.replicas is None else training.replicas.rank
    state = training.trainer.model.state_dict()
    told = {"bits": hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in state.values())).hexdigest(),
            "values": outcome.facts() if hasattr(outcome, "facts") else outcome.counts.tolist(),
            "batches": [len(training.train_loader), len(training.test_loader)]}
    (Path(sys.argv[1]) / f"rank-{rank}.json").write_text(json.dumps(told))
    return outcome


if __name__ == "__main__":
    Training.fit = fit
    sys.exit(main(sys.argv[2:]))
