"""A detector of two panels, tilted against each other, by pyFAI's NexusDetector and by the whole program.

    panels.py prepare FOLDER               frames.h5, panels.h5 (the detector, as pyFAI saves it) and panels.poni
    panels.py check FOLDER MODE MASTER     what the run MODE has in its file against pyFAI's CSR engine on the same frames

pyFAI keeps places of pixels in single precision, 1e-3 of a pixel; so that the geometry is compared and not that, it is given
them in double precision, worked out here from the corners in the file.
"""

import os
import sys

import h5py
import hdf5plugin  # noqa: F401  (registers the filters)
import numpy as np
import pyFAI
from pyFAI import units
from pyFAI.detectors import Detector, NexusDetector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

FOLDER = os.path.abspath(sys.argv[2])
SHAPE, FRAMES, PIXEL = (120, 200), 3, 172e-6
MODES = {"centres": ("no", 90), "polygons": ("full", 120)}


def panel(columns, tilt):
    """Corners of a panel of so many columns, rising towards the sample by `tilt` from the first to the last."""
    row, column = np.mgrid[:SHAPE[0] + 1, :len(columns) + 1].astype(float)
    right = columns[0] * PIXEL + column * PIXEL * np.cos(tilt)
    vertex = np.stack([column * PIXEL * np.sin(tilt) * np.ones(row.shape), row * PIXEL, right], axis=-1)
    return np.stack([vertex[:-1, :-1], vertex[1:, :-1], vertex[1:, 1:], vertex[:-1, 1:]], axis=2)


def prepare():
    os.chdir(FOLDER)
    random = np.random.default_rng(11)
    corners = np.full((*SHAPE, 4, 3), np.nan)
    corners[:, :98] = panel(range(98), 0.25)
    corners[:, 102:] = panel(range(102, 200), -0.3)
    mask = np.zeros(SHAPE, np.int8)
    mask[50:54, 20:60] = 1
    mask[:, 98:102] = 1
    # Nobody knows where the pixels between the panels are; pyFAI wants a place nevertheless, but for one row.
    corners[1:, 98:102] = panel(range(98, 102), 0.0)[1:]
    detector = Detector(PIXEL, PIXEL, max_shape=SHAPE, orientation=3)
    detector.set_pixel_corners(corners.astype(np.float32))
    detector.IS_FLAT, detector.uniform_pixel, detector.IS_CONTIGUOUS = False, False, False
    detector.mask = mask
    detector.aliases = ["Two panels"]
    detector.save("panels.h5")
    ai = AzimuthalIntegrator(0.06, 0.0098, 0.0171, 0.05, -0.03, 0.2, detector=NexusDetector("panels.h5"), wavelength=1.1e-10)
    ai.save("panels.poni")
    row, column = np.mgrid[:SHAPE[0], :SHAPE[1]]
    radius = np.hypot(row - 57, column - 99)
    rings = 25.0 + 200.0 * np.exp(-((radius % 20) - 10) ** 2 / 5)
    with h5py.File("frames.h5", "w") as file:
        file["data"] = random.poisson(np.broadcast_to(rings, (FRAMES, *SHAPE))).astype(np.uint16)


def integrator():
    ai = pyFAI.load("panels.poni")
    assert isinstance(ai.detector, NexusDetector) and ai.detector.get_pixel_corners().shape == (*SHAPE, 4, 3)
    zyx = ai.detector.get_pixel_corners().astype(float)
    turn = np.asarray(ai.rotation_matrix())
    p = np.stack([zyx[..., 1] - ai.poni1, zyx[..., 2] - ai.poni2, zyx[..., 0] + ai.dist])
    unit = units.to_unit("q_nm^-1")
    for what, places in [("corner", p), ("center", p.mean(-1))]:
        t1, t2, t3 = np.einsum("ij,j...->i...", turn, p if what == "corner" else places)
        radius, chi = unit.equation(t2, t1, t3, ai.wavelength), np.arctan2(t1, t2)
        if what == "corner":
            ai._cached_array[f"{unit.space}_corner"] = np.stack([radius, chi], axis=-1)
        else:
            ai._cached_array[f"{unit.space}_center"], ai._cached_array["chi_center"] = radius, chi
    return ai


def check(mode, master):
    os.chdir(FOLDER)
    splitting, bins = MODES[mode]
    with h5py.File("frames.h5") as file:
        frames = file["data"][()]
    masked = integrator().detector.mask != 0
    assert masked[:, 98:102].all() and masked[50:54, 20:60].all() and masked.sum() == 4 * 120 + 160
    with h5py.File(master) as file:
        assert np.array_equal(file["entry/instrument/detector/pixel_mask"][()] & 0xFFFF != 0, masked)
        results = file["entry/results"]
        found = [results[path][()] for path in ("intensity/intensity", "intensity/intensity_errors",
                                                "intensity_pixels/intensity_pixels")]
        q = results["intensity/q"][()]
    for number, frame in enumerate(frames):
        result = integrator().integrate1d_ng(frame, bins, unit="q_nm^-1", method=(splitting, "csr", "cython"),
                                             correctSolidAngle=False, polarization_factor=0.95, error_model="poisson")
        intensity, errors, pixels = [values[number] for values in found]
        assert np.abs(q / result.radial - 1).max() < 1e-6
        there = result.count > 1 + 1e-3
        worst = [np.abs(pixels - result.count).max(),
                 np.abs(intensity / result.intensity - 1)[there].max(), np.abs(errors / result.sigma - 1)[there].max()]
        print(mode, number, int(there.sum()), "bins; worst of pixels, intensity, errors:", *worst)
        assert there.sum() > 0.8 * bins, there.sum()
        if splitting == "no":
            assert worst[0] == 0 and worst[1] <= 1e-5 and worst[2] <= 1e-4
        else:
            assert worst[0] <= 2e-3 and worst[1] <= 1e-4 and worst[2] <= 1e-4


if sys.argv[1] == "prepare":
    prepare()
else:
    check(*sys.argv[3:])
