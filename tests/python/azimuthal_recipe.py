"""Azimuthal integration by the whole program, for the test of the recipe's modes.

    azimuthal_recipe.py prepare FOLDER            frames.h5, detector.poni and mask.npy
    azimuthal_recipe.py check FOLDER MODE MASTER PICTURE|-   what the run MODE has in its files against pyFAI's CSR engine
                                                  on the same frames, and the mean picture as it was served

Bars are those of tests/python/azimuthal_modes.py's test. Every comparison has an integrator of its own: engines are
cached inside.
"""

import os
import sys

import h5py
import hdf5plugin
import numpy as np
import pyFAI
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

FOLDER = sys.argv[2]
SHAPE, FRAMES = (181, 240), 6
POLARIZATION = 0.95
# name: what pyFAI is asked; `two` is the number of azimuthal bins.
MODES = {
    "boxes": {"bins": 200, "unit": "q_nm^-1", "splitting": "bbox", "errors": "poisson", "two": 36},
    "polygons": {"bins": 150, "unit": "2th_deg", "splitting": "full", "errors": "azimuthal", "two": 24},
    "part": {"bins": 120, "unit": "q_A^-1", "splitting": "full", "errors": "poisson", "azimuths": (-35.0, 80.0)},
    "sector": {"bins": 120, "unit": "q_nm^-1", "splitting": "no", "errors": "poisson", "azimuths": (100.0, 250.0)},
    "spacings": {"bins": 100, "unit": "d_A", "splitting": "no", "errors": "hybrid", "range": (4.0, 14.0), "clip": (3.0, 5)},
}


def prepare():
    random = np.random.default_rng(5)
    row, column = np.mgrid[:SHAPE[0], :SHAPE[1]]
    radius = np.hypot(row - 90.3, column - 118.6)
    rings = 20.0 + 300.0 * np.exp(-((radius % 24) - 12) ** 2 / 6) * np.exp(-radius / 90)
    frames = random.poisson(np.broadcast_to(rings, (FRAMES, *SHAPE))).astype(np.uint16)
    frames[random.random(frames.shape) < 0.003] += 900
    mask = random.random(SHAPE) < 0.01
    mask[80:88] = True
    frames[:, mask] = 65535
    with h5py.File(os.path.join(FOLDER, "frames.h5"), "w") as file:
        # Compressed: then the host reduces while it decodes what it can reduce, and only that.
        file.create_dataset("data", data=frames, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4"))
    np.save(os.path.join(FOLDER, "mask.npy"), mask.astype(np.uint8))
    detector = Detector(172e-6, 172e-6, max_shape=SHAPE, orientation=3)
    ai = AzimuthalIntegrator(0.08, 0.0155, 0.0204, 0.02, -0.01, 0.3, detector=detector, wavelength=1.0e-10)
    ai.save(os.path.join(FOLDER, "detector.poni"))


def integrate(mode, frame, mask, two):
    ai = pyFAI.load(os.path.join(FOLDER, "detector.poni"))
    if mode.get("azimuths", (0, 0))[1] > 180:
        ai.setChiDiscAtZero()
    asked = {"mask": mask, "unit": mode["unit"], "method": (mode["splitting"], "csr", "cython"), "correctSolidAngle": True,
             "polarization_factor": POLARIZATION, "error_model": mode["errors"], "radial_range": mode.get("range"),
             "azimuth_range": mode.get("azimuths")}
    if two:
        return ai.integrate2d_ng(frame, mode["bins"], mode["two"], **asked)
    if "clip" in mode:
        return ai.sigma_clip_ng(frame, mode["bins"], thres=mode["clip"][0], max_iter=mode["clip"][1], **asked)
    return ai.integrate1d_ng(frame, mode["bins"], **asked)


def compare(found, result, split, clipped):
    """Number of bins with pixels, and of those that miss the bars."""
    intensity, errors, pixels = found
    sigma = result.sem if clipped else result.sigma
    count = result.count
    there = count > 1 + 1e-3
    # Corners of pixels are in single precision in pyFAI, 1e-3 of a pixel.
    off_n = np.abs(pixels - count) > (np.maximum(2e-3, 1e-4 * count) if split else 0)
    if clipped:  # it says 3 where there are fewer
        off_n &= ~((pixels < 3) & (count == 3))
    scale = np.maximum(np.abs(result.intensity), sigma)
    bar = 1e-4 if split else 1e-5
    missed = off_n | (there & (np.abs(intensity - result.intensity) > bar * scale))
    missed |= there & (np.abs(errors - sigma) > max(bar, 1e-4) * sigma)
    return int(there.sum()), int(missed.sum())


def check(name, master, served):
    mode = MODES[name]
    split = mode["splitting"] != "no"
    mask = np.load(os.path.join(FOLDER, "mask.npy"))
    with h5py.File(os.path.join(FOLDER, "frames.h5")) as file:
        frames = file["data"][()]
    with h5py.File(master) as file:
        assert np.array_equal(file["entry/data/data"][()], frames)
        for two in (False, True) if "two" in mode else (False,):
            base = "intensity_2d" if two else "intensity"
            names = (f"{base}/{base}", f"{base}/{base}_errors", f"{base}_pixels/{base}_pixels")
            values = [file[f"entry/results/{path}"][()] for path in names]
            data = file[f"entry/results/{base}"]
            axes = [axis if isinstance(axis, str) else axis.decode() for axis in data.attrs["axes"]]
            bins = missed = 0
            for number, frame in enumerate(frames):
                result = integrate(mode, frame, mask, two)
                radial = data[axes[-1]][()]
                assert np.abs(radial - result.radial).max() < 1e-6 * np.abs(result.radial).max(), (name, two)
                if two:
                    assert axes == ["frame_number", "azimuth", axes[-1]], axes
                    assert np.abs(data["azimuth"][()] - result.azimuthal).max() < 1e-4
                of_frame = compare([value[number] for value in values], result, split, "clip" in mode)
                bins, missed = bins + of_frame[0], missed + of_frame[1]
            print(f"{name}{' 2-D' if two else ''}: {missed} of {bins} bins miss the bars")
            # In a picture by polygons pyFAI gives another share of the pixels at the beam from call to call, 0.3 pixels in
            # two or three bins of a frame.
            some = 3e-3 if two and mode["splitting"] == "full" else 1e-3 if "clip" in mode else 0
            assert bins > 50 * len(frames) and missed <= some * bins, (name, two, missed, bins)
            if two:
                weights = values[2].astype(np.float64)
                mean = (values[0] * weights).sum(0) / np.maximum(weights.sum(0), 1e-30)
                stored = file[f"entry/results/images/{base}/{base}"][()]
                assert np.allclose(stored, mean, rtol=1e-5, atol=1e-6), "the mean picture"
                assert np.array_equal(np.load(served), stored), "the picture as served"
                part = file["entry/azint_2d"]
                definition = part["definition"][()]
                assert definition in (b"NXazint2d", "NXazint2d"), definition
                assert part["data/I"] == data[base] and part["data/I"].shape == (FRAMES, mode["two"], mode["bins"])
                assert np.array_equal(part["data/azimuthal_axis"][()], data["azimuth"][()])


if sys.argv[1] == "prepare":
    prepare()
else:
    check(*sys.argv[3:])
