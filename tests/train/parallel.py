"""A training that runs alone or under mpiexec, and tells its losses: `python tests/train/parallel.py FOLDER [fail] [sync] [eager] [cuda]`,
run by test_distributed.py. With `cuda` each process has a GPU that executes PTX on the CPU."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

import numbanet
from numbanet import nn, optim
from numbanet.data import ArrayDataset, DataLoader, RandomSampler, SequentialSampler
from numbanet.train import BackupAndRestore, LambdaCallback, Trainer
from numbanet.train.distributed import Replicas, launched


def main(folder: Path, failing: bool, sync: bool, eager: bool, device: str) -> None:
    replicas = Replicas() if launched() else None
    rank = 0 if replicas is None else replicas.rank
    device = device if replicas is None else replicas.own_device(device)
    x = np.random.default_rng(0).standard_normal((43, 1, 8, 6)).astype(np.float32)
    data = ArrayDataset(x, (x.mean((1, 2, 3)) > 0).astype(np.int64))
    numbanet.manual_seed(rank)                          # the first rank's weights count
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2))
    if sync:
        model.insert(1, nn.BatchNorm2d(4))
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.to(device)
    if replicas is None:
        loaders = DataLoader(data, 8, shuffle=True, seed=1), DataLoader(data, 20)
    else:
        loaders = (DataLoader(data, batch_sampler=replicas.batches(RandomSampler(data), 8), seed=1),
                   DataLoader(data, batch_sampler=replicas.batches(SequentialSampler(data), 20, repeat=False)))

    def fail(batch, logs):
        if failing and rank == 1 and batch == 2:
            raise RuntimeError("the second process fails")
    trainer = Trainer(model, None, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), accumulate=2, clip_norm=1.0, replicas=replicas,
                      compiled=not eager,
                      callbacks=[BackupAndRestore(folder / "backup"), LambdaCallback(on_train_batch_end=fail)])
    rows = trainer.fit(*loaders, 4).rows
    bits = hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in model.state_dict().values())).hexdigest()
    (folder / f"rank-{rank}.json").write_text(json.dumps({"rows": rows, "bits": bits}))


if __name__ == "__main__":
    words = [word in sys.argv[2:] for word in ("fail", "sync", "eager")]
    if "cuda" in sys.argv[2:]:
        from tests.backends.cuda.executed.device import installed
        with installed(2):
            numbanet.cuda.device_count = lambda: 2
            main(Path(sys.argv[1]), *words, "cuda")
    else:
        main(Path(sys.argv[1]), *words, "cpu")
