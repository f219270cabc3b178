"""Opens runs as anybody would, with plain h5py, and looks at every frame.

    store_check.py runs DISTINCT FOLDER=FRAMES ...

Frames n and n + DISTINCT of these runs are the same picture. Every run must have at least FRAMES frames stored, all of its files
must open, the ledger must name exactly the frames that are there, and a frame that is not
there reads as the missing value.
"""
import json
import os
import sys

import h5py
import hdf5plugin  # noqa: F401
import numpy as np

distinct = int(sys.argv[2])
total = 0
for argument in sys.argv[3:]:
    folder, acknowledged = argument.rsplit("=", 1)
    with open(os.path.join(folder, "run.json")) as file:
        record = json.load(file)
    with h5py.File(os.path.join(folder, record["files"][0]["name"]), "r") as file:
        data = file["entry/data/data"]
        storage = file["entry/ledger/storage"][...]
        stored = np.flatnonzero(storage == 1)
        assert len(stored) >= int(acknowledged), f"{folder}: {len(stored)} frames, {acknowledged} were acknowledged"
        assert len(stored) == 0 or stored[-1] < data.shape[0], f"{folder}: frames beyond the dataset"
        if record["state"] not in ("complete",) and len(stored):
            assert data.shape[0] >= stored[-1] + 1
        missing = np.iinfo(data.dtype).max
        pictures = {}
        for n in range(data.shape[0]):
            frame = data[n]
            if storage[n] != 1:
                assert (frame == missing).all(), f"{folder}: frame {n} is not stored, and shows something"
                continue
            known = pictures.setdefault(n % distinct, frame)
            assert np.array_equal(known, frame), f"{folder}: frame {n} is another picture"
            assert not (frame == missing).all(), f"{folder}: frame {n} is empty"
        total += len(stored)
print(f"{len(sys.argv) - 3} runs open in plain h5py, {total} frames as they were sent")
