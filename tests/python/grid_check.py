"""Grid scans made with known scores, and centred again by SciPy. Usage: grid_check.py CHECK ARGUMENT..., see the functions.

    make FOLDER SCAN         frames of a grid with three crystals, as scan.h5; the scan as JSON
    crystals FOLDER SCAN     what a run's record and file say against scipy.ndimage
"""

import glob
import json
import os
import sys

import h5py
import hdf5plugin  # noqa: F401  registers the filters
import numpy as np
import scipy.ndimage

SIDE, STEP = 64, 12


def path(columns, lines, scan):
    """Column and line of every box, in the order in which they are measured."""
    column, line = np.meshgrid(np.arange(columns), np.arange(lines))
    if scan["fast_axis"] == "rows":
        column, line = column.T, line.T
    if scan["order"] == "snake":
        column, line = column.copy(), line.copy()
        column[1::2] = column[1::2, ::-1]
        line[1::2] = line[1::2, ::-1]
    return np.stack([column.ravel(), line.ravel()], axis=1)


def sweeps(scan):
    """Per sweep the number of lines, and the box of every frame."""
    lines = [scan["rows"]] + ([scan["layers"]] if scan["layers"] else [])
    return [(count, np.repeat(path(scan["columns"], count, scan), scan["frames_per_box"], axis=0)) for count in lines]


def planned(scan):
    """Spots of every box, by sweep [line, column]: three crystals that are ellipsoids, and up to two spots anywhere."""
    random = np.random.default_rng(scan["seed"])
    size = np.array([scan["columns"], scan["rows"], max(scan["layers"], 1)])
    centres = random.uniform(0.15, 0.85, (3, 3)) * size
    centres[:, 0] = (np.arange(3) + random.uniform(0.35, 0.65, 3)) / 3 * size[0]
    radii = random.uniform(1.0, 1.8, (3, 3))
    maps = []
    for axis, lines in [(1, scan["rows"]), (2, scan["layers"])][: 2 if scan["layers"] else 1]:
        column, line = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(lines) + 0.5)
        score = random.integers(0, 3, column.shape).astype(float)
        for centre, radius in zip(centres, radii):
            away = ((column - centre[0]) / radius[0]) ** 2 + ((line - centre[axis]) / radius[axis]) ** 2
            score += 16 * np.exp(-away)
        maps.append(np.minimum(score.astype(int), 25))
    return maps


def make(folder, scan):
    scan = json.loads(scan)
    random = np.random.default_rng(scan["seed"] + 1)
    counts = [spots[box[1], box[0]] for spots, (_, boxes) in zip(planned(scan), sweeps(scan)) for box in boxes]
    stack = random.poisson(1.0, (len(counts), SIDE, SIDE)).astype("<u2")
    peak = np.outer([0.3, 1, 0.3], [0.3, 1, 0.3]) * 200
    for frame, count in zip(stack, counts):
        for spot in random.permutation(25)[:count]:
            row, column = 7 + spot // 5 * STEP, 7 + spot % 5 * STEP
            frame[row - 1 : row + 2, column - 1 : column + 2] += random.poisson(peak).astype("<u2")
    with h5py.File(os.path.join(folder, "scan.h5"), "w") as h:
        h.create_dataset("entry/data/data", data=stack, chunks=(1, SIDE, SIDE))


def boxes_of(scan, h):
    """Per sweep the mean scores [line, column]; NaN where a box has none."""
    score = h["entry/results/scalars"][scan["score"]][()]
    maps, first = [], 0
    told = scan.get("positions")
    for sweep, (lines, boxes) in enumerate(sweeps(scan)):
        total, frames = np.zeros((2, lines, scan["columns"]))
        own = score[first : first + len(boxes)]
        if told:
            names = [told[0], told[1 + sweep]]
            values = np.stack([h["entry/frame_metadata"][name][()] for name in names], axis=1)
            here = np.isfinite(values).all(axis=1)
            if sweep == 0 and len(told) == 3:
                here &= ~np.isfinite(h["entry/frame_metadata"][told[2]][()])
            axes = [0, 1 + sweep]
            step, origin = np.array(scan["step_mm"])[axes], np.array(scan["origin_mm"])[axes]
            boxes, own = np.round((values[here] - origin) / step).astype(int), score[here]
        first += len(boxes)
        for (column, line), value in zip(boxes, own):
            if np.isfinite(value):
                total[line, column] += value
                frames[line, column] += 1
        maps.append(np.where(frames > 0, total / np.maximum(frames, 1), np.nan))
    return maps


def crystals(folder, scan):
    scan = json.loads(scan)
    (master,) = glob.glob(os.path.join(folder, "*_master.h5"))
    with open(os.path.join(folder, "run.json")) as file:
        answer = json.load(file)["summary"]["results"]["found"]["grid"]
    with h5py.File(master) as h:
        maps = boxes_of(scan, h)
        for name, expected in zip(("grid_score", "grid_score_2"), maps):
            image = h["entry/results/images"][name][name][()]
            assert np.allclose(image, expected, rtol=1e-6, equal_nan=True), name
        stored = {name: field[()] for name, field in h["entry/results/grid"].items()}
        lost = int((h["entry/ledger/frame_state"][()] == 4).sum())
        if scan["score"] == "spots" and not lost and "positions" not in scan:
            for found, wanted in zip(maps, planned(scan)):
                assert np.array_equal(found, wanted), "the spots are not those that were made"
    empty = sum(int(np.isnan(one).sum()) for one in maps)
    assert answer["boxes"] == sum(one.size for one in maps) and answer["boxes_without_score"] == empty, answer
    assert answer["complete"] == (empty == 0) and stored["boxes_without_score"] == empty
    kept = [np.where(one >= scan["min_score"], one, 0) for one in maps]
    if len(kept) == 2:
        # [layer, row, column]: each plane along x is the outer product of both sweeps.
        score = np.einsum("zx,yx->zyx", kept[1], kept[0])
        threshold = 0.25 * score.max()
    else:
        score = kept[0]
        threshold = max(0.25 * score.max(), scan["min_score"])
    labels, count = scipy.ndimage.label(score >= threshold)
    assert count == answer["crystals_found"], (count, answer)
    index = np.arange(1, count + 1)
    totals = scipy.ndimage.sum_labels(score, labels, index)
    order = np.argsort(-totals, kind="stable")
    centres = np.array(scipy.ndimage.center_of_mass(score, labels, index)).reshape(count, score.ndim)[order] + 0.5
    largest = scipy.ndimage.maximum(score, labels, index)[order]
    slices = [scipy.ndimage.find_objects(labels)[at] for at in order]
    assert len(answer["crystals"]) == min(count, 16) and count > 0
    for at, crystal in enumerate(answer["crystals"]):
        assert np.allclose(crystal["centre_of_mass"], centres[at][::-1], rtol=1e-12), (crystal, centres[at])
        edges = [[one.start for one in slices[at][::-1]], [one.stop for one in slices[at][::-1]]]
        assert crystal["bounding_box"] == edges, (crystal, edges)
        assert np.isclose(crystal["total_count"], totals[order[at]], rtol=1e-12)
        assert crystal["n_voxels"] == int((labels == order[at] + 1).sum())
        best = tuple(crystal["max_voxel"][::-1])
        assert score[best] == largest[at] == crystal["max_count"] and labels[best] == order[at] + 1
        for name in ("centre_of_mass", "bounding_box", "max_voxel", "max_count", "n_voxels", "total_count"):
            assert np.array_equal(stored[name][at], crystal[name]), name
        if "step_mm" in scan:
            axes = range(score.ndim)
            where = [scan["origin_mm"][axis] + (centres[at][::-1][axis] - 0.5) * scan["step_mm"][axis] for axis in axes]
            assert np.allclose(crystal["centre_of_mass_mm"], where, rtol=0, atol=1e-9), (crystal, where)
            assert np.array_equal(stored["centre_of_mass_mm"][at], crystal["centre_of_mass_mm"])
    print(json.dumps({"crystals": count, "without score": empty, "lost": lost}))


if __name__ == "__main__":
    {"make": make, "crystals": crystals}[sys.argv[1]](*sys.argv[2:])
