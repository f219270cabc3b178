"""Independent checks of spots and hits in runs' files. Usage: spots_check.py CHECK ARGUMENT..., see the functions."""

import csv
import glob
import json
import os
import sys

import h5py
import hdf5plugin  # noqa: F401  registers the filters
import numpy as np


def open_master(folder):
    (path,) = glob.glob(os.path.join(folder, "*_master.h5"))
    return h5py.File(path)


def spots(results, frame):
    """Row, column of the frame's spots, pixel centres at whole numbers."""
    count = int(results["scalars/spots"][frame])
    places = np.stack([results["%s/%s" % (name, name)][frame] for name in ("spot_row", "spot_column")], axis=1)
    kept = min(count, len(places))
    assert np.isfinite(places[:kept]).all() and np.isnan(places[kept:]).all()
    assert kept == count, "more spots than are kept"
    return places.astype(float)


def lists(folder, *csvs):
    """Recall and precision against DIALS's lists, whose first pixel's centre is at 0.5; a frame a list."""
    pairs = {"found": 0, "listed": 0, "recall": 0, "precision": 0}
    with open_master(folder) as h:
        results = h["entry/results"]
        for frame, path in enumerate(csvs):
            path, _, number = path.partition("@")
            rows = list(csv.DictReader(open(path)))
            rows = [row for row in rows if not number or row["frame"] == number]
            listed = np.array([[float(row["y_px"]) - 0.5, float(row["x_px"]) - 0.5] for row in rows])
            found = spots(results, frame)
            found = found[np.isfinite(found[:, 0])]
            distance = np.hypot(*(found[:, None] - listed[None]).transpose(2, 0, 1))
            pairs["found"] += len(found)
            pairs["listed"] += len(listed)
            pairs["recall"] += int((distance.min(0) <= 1.5).sum())
            pairs["precision"] += int((distance.min(1) <= 1.5).sum())
    recall, precision = pairs["recall"] / pairs["listed"], pairs["precision"] / pairs["found"]
    print(json.dumps({"found": pairs["found"], "listed": pairs["listed"], "recall": recall, "precision": precision}))
    assert recall >= 0.95 and precision >= 0.95, pairs


def hits(folder, min_spots, keep_every):
    """Misses are left out of the file, every so many kept, and everything else is there."""
    min_spots, keep_every = int(min_spots), int(keep_every)
    with open_master(folder) as h:
        scalars = h["entry/results/scalars"]
        count, hit = scalars["spots"][()], scalars["hit"][()]
        storage = h["entry/ledger/storage"][()]
        data = h["entry/data/data"]
        assert np.array_equal(hit == 1, count >= min_spots)
        number = np.arange(len(hit))
        kept = (hit == 1) | (number % keep_every == 0)
        assert np.array_equal(storage == 1, kept) and np.array_equal(storage == 2, ~kept)
        for frame in number:
            # No frame of these has its largest value everywhere: that is what a frame without data reads as.
            assert (data[frame] == 65535).all() != kept[frame], frame
        rate = scalars["hit_rate"][()]
        assert ((rate >= 0) & (rate <= 1)).all()
    print(json.dumps({"hits": int((hit == 1).sum()), "vetoed": int((~kept).sum()), "kept misses": int((kept & (hit == 0)).sum())}))


def peaks(folder):
    """The twenty spots of `hits_make` in every third frame, each near its place, and next to none elsewhere."""
    places = np.array([[12 + spot // 5 * 45, 12 + spot % 5 * 50] for spot in range(20)])
    with open_master(folder) as h:
        results = h["entry/results"]
        near, others, far = 0, 0, []
        for frame in range(len(results["scalars/spots"])):
            found = spots(results, frame)
            found = found[np.isfinite(found[:, 0])]
            if frame % 3:
                others += len(found)
                continue
            distance = np.hypot(*(found[:, None] - places[None]).transpose(2, 0, 1)).reshape(len(found), 20)
            near += int((distance.min(0) <= 1).sum())
            others += int((distance.min(1) > 1).sum())
            far += list(distance.min(0))
        hits = (len(results["scalars/spots"]) + 2) // 3
    print(json.dumps({"recall": near / hits / 20, "elsewhere": others, "median distance": float(np.median(far))}))
    assert near >= 0.99 * 20 * hits and others <= 0.01 * near and np.median(far) <= 0.1


def hits_make(out, frames):
    """Poisson frames, every third with 20 spots; every pixel of the first row holds a count, so no frame is empty."""
    random = np.random.default_rng(7)
    stack = random.poisson(1.0, (int(frames), 200, 240)).astype(np.uint16)
    peak = np.outer([0.3, 1, 0.3], [0.3, 1, 0.3])
    for number in range(0, len(stack), 3):
        for spot in range(20):
            row, column = 12 + spot // 5 * 45, 12 + spot % 5 * 50
            stack[number, row - 1 : row + 2, column - 1 : column + 2] += random.poisson(peak * 120).astype(np.uint16)
    stack[:, 0, :] = np.maximum(stack[:, 0, :], 1)
    with h5py.File(os.path.join(out, "hits.h5"), "w") as h:
        h.create_dataset("entry/data/data", data=stack, chunks=(1, 200, 240))


def lit_make(out, frames):
    """Poisson frames whose light grows from frame to frame, with masked pixels, pixels without a count, and saturated ones."""
    random = np.random.default_rng(8)
    frames = int(frames)
    light = np.linspace(0.1, 2.5, frames)[:, None, None]
    stack = random.poisson(light, (frames, 96, 117)).astype(np.uint16)
    stack[:, 30, :9] = 65535
    stack[:, 31, :5] = 65534
    mask = random.random((96, 117)) < 0.05
    mask[58:65, 68:75] = mask[0, 0] = False
    stack[:, mask] = 500
    stack[::3, 60:63, 70:73] += random.poisson(60, (len(stack[::3]), 3, 3)).astype(np.uint16)
    stack[:, 0, 0] = 1
    np.save(os.path.join(out, "mask.npy"), mask.astype(np.uint8))
    with h5py.File(os.path.join(out, "lit.h5"), "w") as h:
        h.create_dataset("entry/data/data", data=stack, chunks=(1, 96, 117))


def lit(folder, above, least, most, rule, mask=None):
    """Scores as NumPy counts them, and hits as the rule says."""
    with open_master(folder) as h:
        scalars = h["entry/results/scalars"]
        masked = h["entry/instrument/detector/pixel_mask"][()] & 0xFFFF != 0
        if mask:
            assert np.array_equal(masked, np.load(mask) != 0)
        data = h["entry/data/data"][()]
        counted = ~masked & (data > float(above))
        if data.dtype.kind == "u":
            counted &= data != np.iinfo(data.dtype).max
        score = counted.sum((1, 2))
        assert np.array_equal(scalars["lit_pixels"][()], score)
        by_light = (score >= float(least)) & (score <= float(most))
        hit = scalars["hit"][()]
        if rule == "lit_pixels":
            expected = by_light
        else:
            by_spots = scalars["spots"][()] >= 1
            expected = {"spots": by_spots, "both": by_spots & by_light, "either": by_spots | by_light}[rule]
        assert np.array_equal(hit == 1, expected) and np.isfinite(hit).all()
    told = {"hits": int(expected.sum()), "misses": int((~expected).sum()), "undecided": 0}
    print(json.dumps({**told, "scores": [int(score.min()), int(score.max())]}))


BLANK, BLANKS, RATE = (64, 64), 20000, 1e-3


def blank_make(out):
    """Frames without a sample, and the score that so many of them reach by chance, by the binomial distribution."""
    from scipy import stats

    # The published example: a million pixels of 0.01 photons, lit by two or more, one false hit in 10 000.
    assert stats.binom.isf(1e-4, 10**6, stats.poisson.sf(1, 0.01)) == 78
    chance = stats.poisson.sf(1, 0.2)
    pixels = BLANK[0] * BLANK[1]
    least = int(stats.binom.isf(RATE, pixels, chance)) + 1
    random = np.random.default_rng(9)
    with h5py.File(os.path.join(out, "blank.h5"), "w") as h:
        frames = h.create_dataset("entry/data/data", (BLANKS, *BLANK), np.uint8, chunks=(1, *BLANK))
        for first in range(0, BLANKS, 1000):
            frames[first : first + 1000] = random.poisson(0.2, (1000, *BLANK))
    print(json.dumps({"at least": least, "rate": float(stats.binom.sf(least - 1, pixels, chance))}))


def blank(folder, rate):
    """The share of false hits is within a factor of two of what was calibrated for."""
    with open_master(folder) as h:
        hit = h["entry/results/scalars/hit"][()]
        score = h["entry/results/scalars/lit_pixels"][()]
    share = float((hit == 1).mean())
    print(json.dumps({"frames": len(hit), "calibrated": float(rate), "found": share, "mean score": float(score.mean())}))
    assert float(rate) / 2 <= share <= float(rate) * 2


def kinds_make(out):
    """The frames of `hits_make` with darks and flats, as DXchange has them."""
    hits_make(out, 60)
    with h5py.File(os.path.join(out, "hits.h5")) as h, h5py.File(os.path.join(out, "kinds.h5"), "w") as to:
        stack = h["entry/data/data"][()]
        to["exchange/data"] = stack
        to["exchange/data_dark"] = np.ones((4, *stack.shape[1:]), stack.dtype)
        to["exchange/data_white"] = np.full((3, *stack.shape[1:]), 9, stack.dtype)
        to["exchange/theta"] = np.linspace(0, 180, len(stack))


def jungfrau_make(out, data):
    """The module's frames in photons."""
    import gzip

    stack = []
    for number in range(12):
        with gzip.open(os.path.join(data, "mod5_conv%d.bin.gz" % number)) as file:
            stack.append(np.frombuffer(file.read(), "<f4").reshape(512, 1024))
    with h5py.File(os.path.join(out, "jungfrau.h5"), "w") as h:
        h.create_dataset("entry/data/data", data=np.stack(stack), chunks=(1, 512, 1024))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
