"""Frames whose reduction while they are decoded is compared. Usage: fused.py CHECK ARGUMENT..., see the functions.

    make FOLDER              files of bitshuffle-LZ4 frames of every whole-number type
    numbers MASTER FILE      statistics of a run against NumPy's
"""

import sys

import h5py
import hdf5plugin
import numpy as np

FRAMES, ROWS, COLUMNS, SATURATION = 21, 101, 173, 1100


def make(folder):
    rng = np.random.default_rng(9)
    mask = np.zeros((ROWS, COLUMNS), "<u4")
    mask[40:47] = 1
    mask[rng.integers(0, ROWS, 60), rng.integers(0, COLUMNS, 60)] = 2
    for dtype in ("u1", "u2", "u4", "i4"):
        largest = np.iinfo(dtype).max
        frames = rng.poisson(2.0, (FRAMES, ROWS, COLUMNS)).astype(np.int64)
        # Two of three frames have small counts only.
        for frame in frames[1::3]:
            rows, columns = rng.integers(0, ROWS, 300), rng.integers(0, COLUMNS, 300)
            frame[rows, columns] = rng.integers(0, min(1300, largest), 300)
            frame[rng.integers(0, ROWS, 9), rng.integers(0, COLUMNS, 9)] = largest
            if dtype == "i4":
                frame[rng.integers(0, ROWS, 50), rng.integers(0, COLUMNS, 50)] = -7
        frames[:, mask == 1] = largest
        with h5py.File(f"{folder}/{dtype}.h5", "w") as file:
            entry = file.create_group("entry")
            entry.attrs["NX_class"] = "NXentry"
            data = entry.create_group("data")
            data.attrs["NX_class"] = "NXdata"
            data.create_dataset("data", data=frames.astype("<" + dtype), chunks=(1, ROWS, COLUMNS),
                                **hdf5plugin.Bitshuffle(cname="lz4"))
            instrument = entry.create_group("instrument")
            instrument.attrs["NX_class"] = "NXinstrument"
            detector = instrument.create_group("detector")
            detector.attrs["NX_class"] = "NXdetector"
            detector["pixel_mask"] = mask
            if dtype != "u1":
                detector["saturation_value"] = np.float64(SATURATION)


def numbers(master, file):
    with h5py.File(file) as source:
        frames = source["entry/data/data"][()].astype(np.int64)
        dtype = source["entry/data/data"].dtype
        good = source["entry/instrument/detector/pixel_mask"][()] == 0
        limit = SATURATION if "saturation_value" in source["entry/instrument/detector"] else np.iinfo(dtype).max
    invalid = good & (frames == np.iinfo(dtype).max) if dtype.kind == "u" else np.zeros(frames.shape, bool)
    saturated = good & ~invalid & (frames >= limit)
    valid = good & ~invalid & ~saturated
    inside = np.zeros(good.shape, bool)
    inside[30:60, 20:150] = True
    want = {"sum": np.where(valid, frames, 0).sum((1, 2)), "max": np.where(valid, frames, -(1 << 40)).max((1, 2)),
            "saturated_pixels": saturated.sum((1, 2)), "valid_pixels": valid.sum((1, 2)),
            "invalid_pixels": invalid.sum((1, 2)), "middle_counts": np.where(valid & inside, frames, 0).sum((1, 2)),
            "middle_max": np.where(valid & inside, frames, -(1 << 40)).max((1, 2))}
    want["middle_mean"] = want["middle_counts"] / (valid & inside).sum((1, 2))
    with h5py.File(master) as stored:
        scalars = stored["entry/results/scalars"]
        for name, values in want.items():
            np.testing.assert_array_equal(scalars[name][:], values, name)
    print(f"{file}: {len(want)} numbers of {len(frames)} frames, {invalid.sum()} pixels without a count, {saturated.sum()} saturated")


{"make": make, "numbers": numbers}[sys.argv[1]](*sys.argv[2:])
