"""Follows a run that is being written as HDF5 means it: the master file opened once, with swmr=True, and refreshed.

    swmr_reader.py follow MASTER SEEN DISTINCT   until results and frames have grown three times each; what was seen goes to SEEN
    swmr_reader.py compare MASTER SEEN           the closed file, opened plainly, has everything that was seen

Frames n and n + DISTINCT of such a run are the same picture.
"""
import os
import sys
import time

import h5py
import hdf5plugin  # noqa: F401
import numpy as np

SCALAR, CURVE = "entry/results/scalars/sum", "entry/results/intensity/intensity"


def opened(master):
    """The file as soon as it is there."""
    end = time.monotonic() + 60
    while True:
        try:
            return h5py.File(master, "r", swmr=True)
        except OSError:
            assert time.monotonic() < end, f"{master} cannot be opened"
            time.sleep(0.1)


def refreshed(dataset):
    """The one handle of a dataset: with a second one HDF5 keeps the data files open as they were."""
    dataset.id.refresh()
    return dataset


def follow(master, seen, distinct):
    file = opened(master)
    scalar, curve, data = file[SCALAR], file[CURVE], file["entry/data/data"]
    missing = np.iinfo(data.dtype).max
    grown, known, end, errors = {"results": 0, "frames": 0}, {"results": 0, "frames": 0}, time.monotonic() + 120, 0
    while min(grown.values()) < 3:
        assert time.monotonic() < end, f"only {grown} in two minutes: {known}"
        assert not os.path.exists(os.path.join(os.path.dirname(master), "run.json")), "the run has ended"
        sums = refreshed(scalar)[...]
        curves = refreshed(curve)[...]
        done = np.flatnonzero(np.isfinite(sums))
        assert np.isfinite(curves[done]).any(axis=1).all(), "a frame has a sum and no curve"
        try:
            refreshed(data)
            furthest = min(data.shape[0], 2 * (done[-1] + 100) if len(done) else 100)
            frames = data[:furthest]
        except (OSError, RuntimeError):
            errors += 1  # the head of a data file was replaced meanwhile: look again
            assert errors < 50, "the frames cannot be read"
            time.sleep(0.1)
            continue
        there = np.flatnonzero((frames != missing).any(axis=(1, 2)))
        if len(there) < known["frames"]:
            errors += 1  # HDF5 takes a source that it cannot open at this moment for one that is missing
            assert errors < 50, "frames that were there are not any more"
            time.sleep(0.1)
            continue
        for n in there:
            assert np.array_equal(frames[n], frames[there[there % distinct == n % distinct][0]]), f"frame {n}"
        for what, now in [("results", len(done)), ("frames", len(there))]:
            assert now >= known[what], f"fewer {what} than before: {now} of {known[what]}"
            grown[what] += now > known[what]
            known[what] = now
        np.savez(seen, done=done, sums=sums[done], curves=curves[done], there=there, frames=frames[there[:distinct]])
        time.sleep(0.1)
    print(known["results"], "results,", known["frames"], "frames seen live;", errors, "looks fell between two writes")


def compare(master, seen):
    seen = np.load(seen)
    with h5py.File(master, "r") as file:
        done = seen["done"]
        assert np.array_equal(file[SCALAR][...][done], seen["sums"])
        assert np.array_equal(file[CURVE][...][done], seen["curves"], equal_nan=True)
        data = file["entry/data/data"]
        for n, frame in zip(seen["there"], seen["frames"]):
            assert np.array_equal(data[n], frame), f"frame {n}"
        storage = file["entry/ledger/storage"][...]
        assert (storage[seen["there"]] == 1).all()


if sys.argv[1] == "follow":
    follow(sys.argv[2], sys.argv[3], int(sys.argv[4]))
else:
    compare(sys.argv[2], sys.argv[3])
