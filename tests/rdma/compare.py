"""Compares what two runs stored, dataset by dataset, byte by byte: frames, results, masks, the ledger's states.

    compare.py STORE OTHER

Identifiers and times may differ, everything else must not. Prints what was compared.
"""

import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  decodes bitshuffle
import numpy

# What says when, how fast, under which name and on which device a run took place: a sender's rate is its detector's frame time.
OWN = {"date", "hardware_time_ns", "end_time", "end_time_estimated", "start_time", "count_time", "frame_time"}
OWN |= {"entry_identifier", "arrival", "result_latency", "title", "device_failed"}


def master(store):
    (path,) = sorted(Path(store).rglob("*_master.h5"))[-1:]
    return h5py.File(path)


def content(dataset):
    value = dataset[()]
    if dataset.dtype.kind == "O":
        return repr(value.tolist() if isinstance(value, numpy.ndarray) else value).encode()
    return value.tobytes()


def compare(one, other, place, found):
    assert set(one) == set(other), f"{place}: {set(one) ^ set(other)} is in one of them only"
    for name in one:
        mine, theirs, where = one[name], other[name], f"{place}/{name}"
        if isinstance(mine, h5py.Group):
            compare(mine, theirs, where, found)
        elif name not in OWN:
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), f"{where}: shape or type differ"
            bytes_of_mine = content(mine)
            assert bytes_of_mine == content(theirs), f"{where}: values differ"
            found[0] += 1
            found[1] += len(bytes_of_mine)


found = [0, 0]
compare(master(sys.argv[1]), master(sys.argv[2]), "", found)
print(f"{found[0]} datasets with {found[1]} bytes are equal")
