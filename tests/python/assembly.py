"""Halves of a real file and what assembling them makes, by h5py with hdf5plugin.

    assembly.py cut SOURCE DATASET FOLDER FRAMES    whole.h5 (Zstandard), left.h5 (Zstandard), right.h5 (LZ4), short.h5
    assembly.py same FOLDER MASTER GAP              whole.h5 with GAP masked columns between its halves
    assembly.py partial FOLDER MASTER               as the ledger says
    assembly.py passed FOLDER MASTER                the chunks of whole.h5, as they are
"""

import os
import sys

import h5py
import hdf5plugin
import numpy as np


def cut(source, dataset, folder, frames):
    with h5py.File(source) as file:
        data = file[dataset][: int(frames)]
    half = data.shape[2] // 2
    zstd, lz4 = hdf5plugin.Bitshuffle(cname="zstd"), hdf5plugin.Bitshuffle(cname="lz4")
    for name, part, options in (("whole", data, zstd), ("left", data[:, :, :half], zstd), ("right", data[:, :, half:], lz4),
                                ("short", data[: len(data) // 2, :, half:], {})):
        with h5py.File(os.path.join(folder, name + ".h5"), "w") as file:
            file.create_dataset("data", data=part, chunks=(1, *part.shape[1:]), **options)
    print(*data.shape[1:], half)


def whole(folder):
    with h5py.File(os.path.join(folder, "whole.h5")) as file:
        return file["data"][()]


def masked(pixels):
    return np.isnan(pixels).all() if pixels.dtype.kind == "f" else (pixels == np.iinfo(pixels.dtype).max).all()


def master_frames(master):
    with h5py.File(master) as file:
        return file["entry/data/data"][()], file["entry/instrument/detector/pixel_mask"][()], {
            name: file["entry/ledger"][name][()] for name in ("frame_state", "missing_bytes")}


def same(folder, master, gap):
    want, gap = whole(folder), int(gap)
    half = want.shape[2] // 2
    got, mask, ledger = master_frames(master)
    assert (ledger["frame_state"] == 1).all() and not ledger["missing_bytes"].any()
    assert np.array_equal(got[:, :, :half], want[:, :, :half]), "left"
    assert np.array_equal(got[:, :, half + gap:], want[:, :, half:]), "right"
    between = slice(half, half + gap)
    assert masked(got[:, :, between]) and (mask[:, between] & 1).all()
    assert gap == 0 or not (mask[:, : half] & 1).any()
    print(f"{len(got)} frames identical")


def partial(folder, master):
    want = whole(folder)
    half = want.shape[2] // 2
    got, _, ledger = master_frames(master)
    left, right, partial_frames = 0, 0, 0
    sides = (want[0, :, :half].nbytes, want[0, :, half:].nbytes)
    for frame, state, missing in zip(range(len(want)), ledger["frame_state"], ledger["missing_bytes"]):
        there = [np.array_equal(got[frame, :, :half], want[frame, :, :half]),
                 np.array_equal(got[frame, :, half:], want[frame, :, half:])]
        gone = [masked(got[frame, :, :half]), masked(got[frame, :, half:])]
        assert all(a != b for a, b in zip(there, gone)), (frame, there, gone)
        if state == 4:
            assert not any(there), frame
            continue
        assert missing == sum(size for size, is_there in zip(sides, there) if not is_there), (frame, missing)
        assert state == (1 if missing == 0 else 2), (frame, state)
        left, right, partial_frames = left + there[0], right + there[1], partial_frames + (state == 2)
    print(left, right, partial_frames)


def passed(folder, master):
    with h5py.File(os.path.join(folder, "whole.h5")) as one, h5py.File(master.replace("_master", "_data_000001")) as two:
        a, b = one["data"], two["entry/data/data"]
        filters = b.id.get_create_plist().get_filter(0)
        assert filters[0] == 32008 and filters[2][4] == 3, filters
        assert np.array_equal(a[()], b[()])
        for frame in range(len(a)):
            assert a.id.read_direct_chunk((frame, 0, 0)) == b.id.read_direct_chunk((frame, 0, 0)), frame
    with h5py.File(master) as file:
        assert np.array_equal(file["entry/data/data"][()], whole(folder))
    print("passed through")


if __name__ == "__main__":
    {"cut": cut, "same": same, "partial": partial, "passed": passed}[sys.argv[1]](*sys.argv[2:])
