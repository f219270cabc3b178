"""Sparse frames against the frames that they were made of. Usage: sparse_check.py CHECK ARGUMENT..., see the functions.

    make FOLDER              frames of every kind with spots on a background, and their geometry
    check MASTER FILE        a sparse run against its frames, by h5py, pyFAI's geometry and FabIO
    same MASTER FRAME NPY    a frame as the appliance serves it
"""

import json
import logging
import sys

import fabio.sparseimage
import h5py
import hdf5plugin  # noqa: F401  registers the filters
import numpy as np
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

ROWS, COLUMNS, FRAMES = 211, 187, 5
logging.disable(logging.WARNING)


def geometry():
    detector = Detector(1e-4, 1e-4, max_shape=(ROWS, COLUMNS), orientation=3)
    return AzimuthalIntegrator(0.05, 0.0101, 0.0083, detector=detector, wavelength=1e-10)


def make(folder):
    random = np.random.default_rng(11)
    ai = geometry()
    radius = ai.array_from_unit((ROWS, COLUMNS), unit="r_mm", scale=True)
    expected = (40 * np.exp(-((radius / 6) ** 2)) + 12) * ai.solidAngleArray() * ai.polarization(factor=0.9)
    mask = np.zeros((ROWS, COLUMNS), "<u4")
    mask[100:104], mask[:, 60:63] = 1, 1
    frames = random.poisson(expected, (FRAMES, ROWS, COLUMNS)).astype(float)
    peak = np.outer([0.3, 1, 0.3], [0.3, 1, 0.3]) * 500
    for frame in frames:
        for row, column in zip(random.integers(2, ROWS - 2, 20), random.integers(2, COLUMNS - 2, 20)):
            frame[row - 1 : row + 2, column - 1 : column + 2] += random.poisson(peak)
        frame[random.integers(0, ROWS, 3), random.integers(0, COLUMNS, 3)] = 30000
    for kind in ("u1", "i2", "u2", "u4", "i4", "f4"):
        # What an 8-bit counter cannot hold is its largest value, which is no count.
        stack = (np.minimum(frames, 255) if kind == "u1" else frames).astype("<" + kind)
        if kind[0] == "i":
            stack[1, 20, 30] = -300  # a pixel far below the background is kept like one above it
        if kind[0] == "u":
            stack[:, mask == 1] = np.iinfo(kind).max
            stack[2, 50, 50] = np.iinfo(kind).max  # holds no count
        with h5py.File(f"{folder}/{kind}.h5", "w") as file:
            file.create_dataset("entry/data/data", data=stack, chunks=(1, ROWS, COLUMNS), **hdf5plugin.Bitshuffle(cname="lz4"))
            file["entry/instrument/detector/pixel_mask"] = mask
            for path, kind in (("entry", "NXentry"), ("entry/data", "NXdata"), ("entry/instrument", "NXinstrument"),
                               ("entry/instrument/detector", "NXdetector")):
                file[path].attrs["NX_class"] = kind
    ai.save(f"{folder}/beam.poni")


def dense_of(group, frame):
    """The page of documentation's reader."""
    first, end = group["frame_ptr"][frame : frame + 2]
    background = np.interp(group["mask"], group["radius"], group["background_avg"][frame])
    dense = background * group["normalization"][()]
    dense.flat[group["index"][first:end]] = group["intensity"][first:end]
    dense[np.isnan(group["mask"])] = group["dummy"][()]
    return dense


def check(master, file):
    ai = geometry()
    with h5py.File(file) as source, h5py.File(master) as h:
        frames = source["entry/data/data"][()]
        masked = source["entry/instrument/detector/pixel_mask"][()] != 0
        group = h["entry/sparse_frames"]
        assert group.attrs["lossy"] == 1 and "cannot be had back" in group.attrs["description"]
        settings = json.loads(h["entry/sparsify/configuration/data"][()])["parameters"]["sparse"]
        assert np.array_equal(np.isnan(group["mask"]), masked)
        radius = ai.array_from_unit((ROWS, COLUMNS), unit="r_mm", scale=True)
        assert np.allclose(group["mask"][()][~masked], radius[~masked], rtol=2e-7)
        factor = ai.solidAngleArray() * ai.polarization(factor=0.9)
        assert np.allclose(group["normalization"], factor, rtol=2e-7)
        assert group["intensity"].dtype == frames.dtype
        kept_share, biases = [], []
        for number, frame in enumerate(frames):
            first, end = group["frame_ptr"][number : number + 2].astype(int)
            index = group["index"][first:end].astype(int)
            kept = np.zeros(frame.size, bool)
            kept[index] = True
            kept = kept.reshape(frame.shape)
            assert (np.diff(index) > 0).all() and not (kept & masked).any()
            # Kept pixels are exact, everything else is the background's value.
            assert np.array_equal(group["intensity"][first:end], frame.flat[index])
            mean = np.interp(radius, group["radius"], group["background_avg"][number]) * factor
            sigma = np.interp(radius, group["radius"], group["background_std"][number]) * factor
            dense = dense_of(group, number)
            rest = ~kept & ~masked
            # Radii are kept in single precision; rings are narrow and their curve is not smooth.
            assert np.allclose(dense[rest], mean[rest], rtol=1e-4)
            limit = settings["pick_sigmas"] * np.hypot(sigma, settings["noise"])
            value = frame.astype(float)
            largest = np.iinfo(frame.dtype).max if frame.dtype.kind == "u" else np.inf
            above = ~masked & ((np.abs(value - mean) > limit * (1 + 1e-3)) | (value >= 30000) | (value == largest))
            assert kept[above].all(), "a pixel above the limit was not kept"
            if settings["border_px"] == 0:
                near = (np.abs(value - mean) > limit * (1 - 1e-3)) | (value >= 30000)
                assert not (kept & ~near).any(), "a pixel within the limits was kept"
            # What is gone: no bias beyond 0.05 standard deviations of a pixel.
            biases.append(abs(float(((value - dense)[rest] / sigma[rest]).mean())))
            kept_share.append(float(kept.mean()))
        # An independent curve: pyFAI's sigma clipping with the same number of rings and limits, between the rings' edges.
        reference = ai.sigma_clip_ng(np.where(masked, 0, frames[0]).astype("f4"), settings["bins"], unit="r_mm", mask=masked,
                                     thresh=settings["clip_sigmas"], max_iter=settings["cycles"], error_model="poisson",
                                     polarization_factor=0.9, method=("no", "csr", "cython"), correctSolidAngle=True)
        ours = np.interp(reference.radial, group["radius"], group["background_avg"][0])
        good = (reference.radial < 14) & (reference.count > 20)
        apart = np.abs(ours - reference.intensity)[good] / group["background_std"][0].mean()
    # fabio.open takes every HDF5 file that pyFAI has not made for an Eiger's.
    with fabio.sparseimage.SparseImage().read(master) as image:
        assert image.nframes == FRAMES
        for number in range(FRAMES):
            with h5py.File(master) as h:
                expected = dense_of(h["entry/sparse_frames"], number)
            found = image.getframe(number).data
            assert found.dtype == frames.dtype
            tolerance = 0.51 if frames.dtype.kind != "f" else 1e-3
            assert np.allclose(found, expected, rtol=1e-4, atol=tolerance, equal_nan=True), number
    print(json.dumps({"kept": round(float(np.mean(kept_share)), 4), "bias": round(max(biases), 4),
                      "from pyFAI's clipped curve, sigmas, median": round(float(np.median(apart)), 3)}))
    assert max(biases) <= 0.05 and np.median(apart) < 0.2


def same(master, frame, npy):
    served = np.load(npy)
    with h5py.File(master) as h:
        expected = dense_of(h["entry/sparse_frames"], int(frame))
    assert served.dtype == np.dtype("<u2") and np.abs(served - expected).max() <= 0.51


if __name__ == "__main__":
    {"make": make, "check": check, "same": same}[sys.argv[1]](*sys.argv[2:])
