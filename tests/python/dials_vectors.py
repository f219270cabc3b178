"""Vectors for the spot finder's tests: strong-pixel masks by DIALS's own C++ of seeded integer frames, as hashes.

    apt-get --download-only install dials python3-dials; dpkg -x each of them into ROOT
    PYTHONPATH=ROOT/usr/lib/python3/dist-packages LD_LIBRARY_PATH=ROOT/usr/lib/x86_64-linux-gnu \
    LIBTBX_BUILD=ROOT/usr/lib/cctbx/python3.11 /usr/bin/python3.11 dials_vectors.py COUNT > kernels/src/spots/dials.txt

One line a frame: seed, strong pixels and hash by DispersionThreshold, the same by DispersionExtendedThreshold. The
frames are made of whole numbers alone, the same ones by `kernels/src/spots/vectors.rs`.
"""

import hashlib
import sys

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(z):
    """SplitMix64's finalizer."""
    with np.errstate(over="ignore"):
        z = np.asarray(z, np.uint64) + GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def draw(seed, stream, index):
    return mix(mix(mix(np.uint64(seed)) ^ np.uint64(stream)) ^ np.asarray(index, np.uint64))


def parameter(seed, number, choices):
    return choices[int(draw(seed, 1000 + number, 0)) % len(choices)]


def popcount(words):
    return np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1).sum(1).astype(np.int64)


def make(seed):
    """Frame, mask (True: good) and the thresholds' parameters."""
    rows, columns = 30 + parameter(seed, 0, range(90)), 30 + parameter(seed, 1, range(110))
    settings = {
        "radius": parameter(seed, 2, [3, 3, 3, 3, 1, 2, 4, 5]),
        "background": parameter(seed, 3, [60, 60, 60, 30, 33, 61, 45, 75]) / 10,
        "strong": parameter(seed, 4, [30, 30, 30, 25, 33, 31, 20, 45]) / 10,
        "threshold": parameter(seed, 5, [0, 0, 0, 1, 3, 10]),
        "min_count": parameter(seed, 6, [2, 2, 3, 9]),
        "gain": parameter(seed, 7, [10, 10, 10, 10, 10, 10, 15, 7]) / 10,
    }
    index = np.arange(rows * columns, dtype=np.uint64)
    row, column = (index // np.uint64(columns)).astype(np.int64), (index % np.uint64(columns)).astype(np.int64)
    words = np.full(len(index), ~np.uint64(0))
    for bit in range(parameter(seed, 8, range(2, 10))):  # each pixel of 64 tries: nearly Poisson
        words &= draw(seed, 10 + bit, index)
    pixels = popcount(words) * parameter(seed, 9, [1, 1, 1, 1, 1, 1, 3, 1])
    pixels += (row * parameter(seed, 10, [0, 0, 1, 7])) >> 5
    pixels += parameter(seed, 11, [0] * 15 + [20000])
    for spot in range(parameter(seed, 12, range(20))):
        place = int(draw(seed, 2000, spot))
        distance = (row - place % rows) ** 2 + (column - (place >> 20) % columns) ** 2
        pixels += np.where(distance < 64, (8 << ((place >> 40) % 12)) >> np.minimum(distance >> (place >> 60) % 3, 62), 0)
    wide = seed % 4 == 3
    hot = draw(seed, 3000, index) % np.uint64(2048) == 0
    pixels = np.where(hot, 20_000_000 if wide else 65535, np.minimum(pixels, 65535))
    good = np.ones(len(index), bool)
    if parameter(seed, 13, [True, False, False]):
        good &= (column % 37 >= 3) & (row % 53 >= 4)
    if parameter(seed, 14, [True, False]):
        good &= draw(seed, 4000, index) % np.uint64(64) != 0
    shape = (rows, columns)
    return pixels.reshape(shape).astype(np.int32), good.reshape(shape), settings


def main(count):
    from dials.algorithms.image.threshold import DispersionExtendedThreshold, DispersionThreshold
    from dials.array_family import flex
    import dials.util.version

    print("#", dials.util.version.dials_version(), "from Debian 12")
    for seed in range(count):
        pixels, good, s = make(seed)
        line = [str(seed)]
        for method in (DispersionThreshold, DispersionExtendedThreshold):
            box = (s["radius"], s["radius"])
            finder = method(pixels.shape, box, s["background"], s["strong"], float(s["threshold"]), s["min_count"])
            image, mask = flex.double(pixels.astype(np.float64)), flex.bool(good)
            strong = flex.bool(flex.grid(pixels.shape))
            if s["gain"] == 1:
                finder(image, mask, strong)
            else:
                finder(image, mask, flex.double(np.full(pixels.shape, s["gain"])), strong)
            found = strong.as_numpy_array()
            line += [str(int(found.sum())), hashlib.sha256(np.packbits(found).tobytes()).hexdigest()[:16]]
        print(*line)


if __name__ == "__main__":
    main(int(sys.argv[1]))
