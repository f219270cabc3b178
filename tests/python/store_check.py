"""Opens runs as anybody would, with plain h5py, and looks at every frame.

    store_check.py runs DISTINCT FOLDER=FRAMES ...
    store_check.py opens FOLDER=FRAMES

Frames n and n + DISTINCT of these runs are the same picture. Every run must have at least FRAMES frames stored, all of its files
must open, the ledger must name exactly the frames that are there, and a frame that is not
there reads as the missing value. `opens` is for a run that has no `run.json` yet: its first frame, its last one, and every 97th.
"""
import glob
import json
import os
import sys

import h5py
import hdf5plugin  # noqa: F401
import numpy as np


def opens(argument):
    folder, acknowledged = argument.rsplit("=", 1)
    (master,) = glob.glob(os.path.join(folder, "*_master.h5"))
    with h5py.File(master, "r") as file:
        data = file["entry/data/data"]
        stored = np.flatnonzero(file["entry/ledger/storage"][...] == 1)
        assert len(stored) >= int(acknowledged), f"{len(stored)} frames, {acknowledged} were acknowledged"
        missing = np.iinfo(data.dtype).max
        looked = sorted({*stored[::97], stored[-1]})
        for n in looked:
            assert not (data[n] == missing).all(), f"frame {n} is empty"
    print(f"{len(stored)} frames, {len(looked)} looked at in plain h5py")


def runs(distinct, *arguments):
    distinct, total = int(distinct), 0
    for argument in arguments:
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
    print(f"{len(arguments)} runs open in plain h5py, {total} frames as they were sent")


if __name__ == "__main__":
    {"opens": opens, "runs": runs}[sys.argv[1]](*sys.argv[2:])
