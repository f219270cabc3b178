"""Results of interrupted runs against those of a run that was not: every frame's are the same, bit for bit.

    results_check.py REFERENCE FOLDER=RESULTS ...

REFERENCE is the master file of the run that went to its end, FOLDER that of an interrupted one, which must have RESULTS results at
least. Where the ledger says that a frame was analysed every result is there, elsewhere none is.
"""
import json
import os
import sys

import h5py
import numpy as np


def per_frame(file):
    """Every dataset of the results with a row per frame."""
    rows = file["entry/data/data"].shape[0]
    found = {}

    def look(name, node):
        within_run = name.split("/")[0] in ("final", "images", "grid")
        if isinstance(node, h5py.Dataset) and node.ndim and node.shape[0] == rows and not within_run:
            if node.attrs.get("long_name") is None:
                found[name] = node[...]

    file["entry/results"].visititems(look)
    return found


def is_none(values):
    return np.isnan(values) if values.dtype.kind == "f" else values == 0


with h5py.File(sys.argv[1], "r") as file:
    assert (file["entry/ledger/analysis"][...] == 1).all(), "the reference lacks results"
    reference = per_frame(file)
    assert "state" not in file["entry/results"].attrs
total = 0
for argument in sys.argv[2:]:
    folder, synced = argument.rsplit("=", 1)
    with open(os.path.join(folder, "run.json")) as file:
        record = json.load(file)
    with h5py.File(os.path.join(folder, record["files"][0]["name"]), "r") as file:
        done = np.flatnonzero(file["entry/ledger/analysis"][...] == 1)
        assert len(done) >= int(synced), f"{folder}: {len(done)} results, {synced} had been synced"
        assert record["summary"]["outcomes"]["done"] == len(done)
        if len(done) == 0:
            continue
        results = file["entry/results"]
        assert results.attrs["state"].startswith("partial"), dict(results.attrs)
        assert results.attrs["frames_with_result"] == len(done)
        found = per_frame(file)
        assert found.keys() == reference.keys(), found.keys() ^ reference.keys()
        rows = len(next(iter(found.values())))
        assert done[-1] < rows
        others = np.setdiff1d(np.arange(rows), done)
        known = done[done < len(next(iter(reference.values())))]
        for name, values in found.items():
            same = np.array_equal(values[known], reference[name][known], equal_nan=values.dtype.kind == "f")
            assert same, f"{folder}: {name} differs"
            if name != "frame_number":
                assert is_none(values[others]).all(), f"{folder}: {name} of frames that were not analysed"
        total += len(known)
print(f"{len(sys.argv) - 2} runs, {total} results as those of a run that was not interrupted")
