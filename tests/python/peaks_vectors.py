"""Vectors for the spot finder's tests: peaks by OM 23.8.3's peakfinder8 of seeded integer frames.

    pip install "numpy<1.25" h5py scipy pyyaml; pip install --no-deps ondamonitor==23.8.3
    python peaks_vectors.py COUNT > kernels/src/spots/om.txt

One line a frame: seed, then row, column, intensity, pixels of each peak. The frames are those of `dials_vectors.py`, at
most 65535 and without its base of 20000, which single-precision sums of squares do not bear.
"""

import sys

import numpy as np
from dials_vectors import make, parameter
from om.algorithms._crystallography import peakfinder_8


def settings(seed, shape):
    """What peakfinder8 is asked for; the same in `kernels/src/spots/vectors.rs`."""
    rows, columns = shape
    halves = parameter(seed, 100, [False, False, True]) and rows % 2 == 0 and columns % 2 == 0
    return {
        "panel": (rows // 2, columns // 2) if halves else shape,
        "center": (parameter(seed, 101, range(rows + 20)) - 10, parameter(seed, 102, range(columns + 20)) - 10),
        "snr": parameter(seed, 103, [50, 50, 40, 60, 80, 35]) / 10,
        "threshold": parameter(seed, 104, [0, 0, 5, 10, 30, 100]),
        "min_pixels": parameter(seed, 105, [1, 2, 2, 3]),
        "max_pixels": parameter(seed, 106, [20, 50, 200]),
        "background_radius": parameter(seed, 107, [2, 3, 3, 4, 5]),
    }


def main(count):
    print("# ondamonitor 23.8.3")
    for seed in range(count):
        pixels, good, _ = make(seed)
        base = parameter(seed, 11, [0] * 15 + [20000])
        pixels = np.minimum(np.where(pixels >= 65535, 65535, pixels - base), 65535)
        s = settings(seed, pixels.shape)
        row, column = np.indices(pixels.shape)
        radius = np.hypot(row - s["center"][0], column - s["center"][1]).astype(np.float32)
        high, wide = s["panel"]
        found = peakfinder_8(
            10000, pixels.astype(np.float32), good.astype(np.int8), radius, 0, None, None, 0, wide, high,
            pixels.shape[1] // wide, pixels.shape[0] // high, s["threshold"], s["snr"], s["min_pixels"],
            s["max_pixels"], s["background_radius"],
        )
        columns, rows, intensities, _, sizes = found[:5]
        peaks = zip(rows, columns, intensities, sizes)
        print(seed, *("%.3f %.3f %.7g %d" % peak for peak in peaks))


if __name__ == "__main__":
    main(int(sys.argv[1]))
