"""Follows a run that is being written as HDF5 means it: the master file opened once, with swmr=True, and refreshed.

    swmr_reader.py follow MASTER SEEN DISTINCT   until results, frames and ledger have grown three times each; what was seen goes to SEEN
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
LEDGER = ["storage", "analysis", "frame_state", "arrival", "result_latency"]  # what is known last comes first


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
    ledger = [file["entry/ledger/" + column] for column in LEDGER]
    grown, known = {"results": 0, "frames": 0, "stored": 0}, {"results": 0, "frames": 0, "stored": 0}
    end, errors = time.monotonic() + 120, 0
    while min(grown.values()) < 3:
        assert time.monotonic() < end, f"only {grown} in two minutes: {known}"
        assert not os.path.exists(os.path.join(os.path.dirname(master), "run.json")), "the run has ended"
        sums = refreshed(scalar)[...]
        curves = refreshed(curve)[...]
        done = np.flatnonzero(np.isfinite(sums))
        if not np.isfinite(curves[done]).any(axis=1).all():
            errors += 1  # HDF5 brings one dataset to the file after the other, in an order of its own
            assert errors < 50, "a frame has a sum and no curve"
            time.sleep(0.1)
            continue
        columns = [refreshed(column)[...] for column in ledger]
        stored = np.flatnonzero((columns[0] == 1) & (columns[1] == 1))
        rows = np.array([column[stored] for column in columns])
        assert (rows[2] == 1).all() and (rows[3] > 0).all() and (rows[4] > 0).all(), "a frame is stored that never came"
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
        for what, now in [("results", len(done)), ("frames", len(there)), ("stored", len(stored))]:
            assert now >= known[what], f"fewer {what} than before: {now} of {known[what]}"
            grown[what] += now > known[what]
            known[what] = now
        np.savez(seen, done=done, sums=sums[done], curves=curves[done], there=there, frames=frames[there[:distinct]],
                 stored=stored, rows=rows)
        time.sleep(0.1)
    print(known["results"], "results,", known["frames"], "frames,", known["stored"], "of them stored in the ledger, seen live;", errors, "looks fell between two writes")


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
        for column, rows in zip(LEDGER, seen["rows"]):
            assert np.array_equal(file["entry/ledger/" + column][...][seen["stored"]], rows), column


if sys.argv[1] == "follow":
    follow(sys.argv[2], sys.argv[3], int(sys.argv[4]))
else:
    compare(sys.argv[2], sys.argv[3])
