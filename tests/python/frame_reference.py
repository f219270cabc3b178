"""What hdf5plugin and pyFAI make of the same numbers, for the test of `frame`.

    frame_reference.py codec|geometry FOLDER

Codec: NAME.raw (elements, little-endian), NAME.bytes (bytes of an element as text) and NAME.chunk, the one chunk that
HDF5 filter 32008 made of them. Geometry: NAME.poni, NAME.shape (rows and columns as text), and pyFAI's values of every
pixel as f64, row by row: NAME.q (1/nm), NAME.chi (rad), NAME.solid and NAME.polarization (factor 0.9).
"""

import os
import sys

import h5py
import hdf5plugin
import numpy as np
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

FOLDER = sys.argv[2]


def path(name):
    return os.path.join(FOLDER, name)


def chunk(name, pixels, **options):
    with h5py.File(path("chunk.h5"), "w") as file:
        options = hdf5plugin.Bitshuffle(**(options or {"cname": "lz4"}))
        data = file.create_dataset("data", data=pixels, chunks=pixels.shape, compression=options)
        skipped, stored = data.id.read_direct_chunk((0,) * pixels.ndim)
        assert skipped == 0, f"{name}: HDF5 did not apply the filter"
    pixels.tofile(path(name + ".raw"))
    with open(path(name + ".chunk"), "wb") as file:
        file.write(stored)
    with open(path(name + ".bytes"), "w", encoding="ascii") as file:
        file.write(str(pixels.dtype.itemsize))


def codec():
    random = np.random.default_rng(7)
    for kind in ("u1", "u2", "u4", "i2", "i4", "f4"):
        dtype = np.dtype("<" + kind)
        for count in (1, 7, 8, 9, 127, 128, 1000, 2047, 2048, 2049, 4096, 8192, 8193, 65536 + 5, 300_007):
            chunk(f"{kind}_{count}", random.poisson(3.0, count).astype(dtype))
        noise = random.integers(0, 256, 512 * 515 * dtype.itemsize, dtype=np.uint8)
        chunk(f"{kind}_incompressible", noise.view(dtype))
        chunk(f"{kind}_constant", np.full((514, 1030), 77, dtype))
        chunk(f"{kind}_zero", np.zeros((514, 1030), dtype))
        gaps = random.poisson(0.05, (1065, 1030)).astype(dtype)
        gaps[514:551] = -1 if kind[0] != "u" else np.iinfo(dtype).max
        chunk(f"{kind}_module", gaps)
        if kind[0] == "i":
            chunk(f"{kind}_negative", random.integers(-300, 300, (123, 457)).astype(dtype))


def zstd():
    """As `codec`, with Zstandard beneath."""
    random = np.random.default_rng(11)
    for kind in ("u1", "u2", "u4", "i2", "i4", "f4"):
        dtype = np.dtype("<" + kind)
        for count in (1, 7, 8, 9, 127, 129, 2047, 2049, 8193, 300_007):
            chunk(f"{kind}_{count}", random.poisson(3.0, count).astype(dtype), cname="zstd")
        noise = random.integers(0, 256, 512 * 515 * dtype.itemsize, dtype=np.uint8)
        chunk(f"{kind}_incompressible", noise.view(dtype), cname="zstd", clevel=1)
        chunk(f"{kind}_constant", np.full((514, 1030), 77, dtype), cname="zstd", clevel=19)
        gaps = random.poisson(0.05, (1065, 1030)).astype(dtype)
        gaps[514:551] = -1 if kind[0] != "u" else np.iinfo(dtype).max
        chunk(f"{kind}_module", gaps, cname="zstd", nelems=4096)


def geometry():
    shape = (61, 83)
    poses = {"straight": (0.0, 0.0, 0.0), "tilted": (0.31, -0.22, 0.6), "steep": (-1.1, 0.7, 2.5), "back": (0.2, 2.0, -1.0)}
    for orientation in (1, 2, 3, 4):
        for pose, (rot1, rot2, rot3) in poses.items():
            detector = Detector(172e-6, 55e-6, max_shape=shape, orientation=orientation)
            ai = AzimuthalIntegrator(0.012, 0.0031, 0.0012, rot1, rot2, rot3, detector=detector, wavelength=0.7e-10)
            name = f"{pose}_{orientation}"
            ai.save(path(name + ".poni"))
            with open(path(name + ".shape"), "w", encoding="ascii") as file:
                file.write(f"{shape[0]} {shape[1]}")
            ai.center_array(shape, unit="q_nm^-1").astype("<f8").tofile(path(name + ".q"))
            ai.center_array(shape, unit="chi_rad").astype("<f8").tofile(path(name + ".chi"))
            ai.solidAngleArray(shape).astype("<f8").tofile(path(name + ".solid"))
            ai.polarization(shape, 0.9, path=None).astype("<f8").tofile(path(name + ".polarization"))


{"codec": codec, "zstd": zstd, "geometry": geometry}[sys.argv[1]]()
