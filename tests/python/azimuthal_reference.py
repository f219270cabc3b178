"""Azimuthal integration by pyFAI's CSR engine, for the test of our own: 1-D without splitting at full size.
The other modes are in azimuthal_modes.py.

    azimuthal_reference.py FOLDER DATA

Writes cases into FOLDER: NAME.json (what was asked for), NAME_raw.npy, NAME_mask.npy and, as the case has them,
NAME_dark.npy and NAME_flat.npy; and pyFAI's answer: NAME_radial.npy, NAME_intensity.npy, NAME_sigma.npy,
NAME_count.npy. DATA is the folder of real data; the real case is left out where its frame is missing.
"""

import gzip
import io
import json
import os
import sys

import fabio
import numpy as np
import pyFAI
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

FOLDER, DATA = sys.argv[1], sys.argv[2]
METHOD = ("no", "csr", "cython")


def save(name, ai, raw, mask, bins, unit, polarization=None, radial_range=None, saturation=None, dummy=None,
         delta_dummy=None, dark=None, flat=None, factor=1.0):
    """One case. Saturated pixels differ from frame to frame, so pyFAI's static mask takes them; what they do to
    the range of the bins must not matter, so such cases name a range."""
    left_out = mask != 0 if saturation is None else (mask != 0) | (raw >= saturation)
    result = ai.integrate1d_ng(
        raw, bins, mask=left_out.astype(np.int8), unit=unit, method=METHOD, correctSolidAngle=True,
        polarization_factor=polarization, error_model="poisson", radial_range=radial_range, dummy=dummy,
        delta_dummy=delta_dummy, dark=dark, flat=flat, normalization_factor=factor)
    path = os.path.join(FOLDER, name)
    arrays = {"raw": raw, "mask": (mask != 0).astype(np.uint8), "radial": result.radial, "dark": dark, "flat": flat,
              "intensity": result.intensity.astype(np.float64), "sigma": result.sigma.astype(np.float64),
              "count": result.count.astype(np.float64)}
    for key, values in arrays.items():
        if values is not None:
            np.save(f"{path}_{key}.npy", np.ascontiguousarray(values))
    ai.save(path + ".poni") if not os.path.exists(path + ".poni") else None
    with open(path + ".json", "w", encoding="utf-8") as file:
        json.dump({"bins": bins, "unit": unit, "polarization": polarization, "range": radial_range,
                   "saturation": saturation, "dummy": dummy, "delta_dummy": delta_dummy, "factor": factor,
                   "dtype": raw.dtype.name}, file)


def eiger(rot1=0.0, rot2=0.0, rot3=0.0, dist=0.1, poni=(0.041, 0.0385)):
    """A fresh integrator for each case: engines are cached inside."""
    detector = Detector(75e-6, 75e-6, max_shape=(1065, 1030), orientation=3)
    return AzimuthalIntegrator(dist, *poni, rot1, rot2, rot3, detector=detector, wavelength=1.0e-10)


def main():
    shape = (1065, 1030)
    random = np.random.default_rng(20)
    row, column = np.mgrid[:shape[0], :shape[1]]
    radius = np.hypot(row - 540, column - 510)
    counts = random.poisson(3.0 + 200.0 * np.exp(-((radius % 90) - 45) ** 2 / 20) * np.exp(-radius / 400))
    mask = ((row >= 514) & (row < 551)) | (random.random(shape) < 0.002)
    gaps = np.where(mask, 65535, counts).astype(np.uint16)
    save("eiger", eiger(), gaps, mask, 1000, "q_nm^-1", polarization=0.99)

    hot = gaps.copy()
    hot[random.random(shape) < 0.01] = 65535
    save("saturated", eiger(0.02, -0.01, 0.3), hot, mask, 2000, "q_A^-1", polarization=-0.5,
         radial_range=(0.4, 2.6), saturation=65535)

    sparse = random.poisson(0.02, shape).astype(np.uint32)
    save("tilted", eiger(0.5236, 0.1, 1.0), sparse, mask, 777, "2th_deg", polarization=0.0)

    dark = random.normal(1.0, 0.2, shape).astype(np.float32)
    flat = random.normal(1.0, 0.05, shape).astype(np.float32)
    signed = (counts.astype(np.int32) - 5).astype(np.int16)
    signed[random.random(shape) < 0.01] = -2
    save("signed", eiger(poni=(-0.02, 0.15)), signed, mask, 500, "r_mm", dummy=-2.0, delta_dummy=1.5, dark=dark,
         flat=flat, factor=7.5)

    floats = (counts - 3.0 + random.normal(0, 0.3, shape)).astype(np.float32)
    floats[::7, ::31] = np.nan
    save("floats", eiger(0.02, -0.01, 0.3), floats, mask, 1000, "2th_rad", polarization=0.9, dark=dark, flat=flat)

    # Fewer pixels than bins: most stay empty.
    corner = np.ones(shape, dtype=bool)
    corner[:20, :20] = False
    save("empty", eiger(), gaps, corner, 1500, "q_nm^-1")

    folder = os.path.join(DATA, "pw-ceo2-dioptas")
    frame = os.path.join(folder, "CeO2_Pilatus1M.tif.gz")
    if os.path.exists(frame):
        with gzip.open(frame) as file:
            image = fabio.tifimage.TifImage().read(io.BytesIO(file.read())).data
        image = np.ascontiguousarray(image[::-1]).astype(np.int32)
        for number, bins in enumerate((1500, 3000)):
            name = f"ceo2_{number}"
            poni = os.path.join(folder, "CeO2_Pilatus1M.poni")
            ai = pyFAI.load(poni)
            ai.detector = Detector(ai.pixel1, ai.pixel2, max_shape=image.shape, orientation=3)
            with open(poni, encoding="utf-8") as source, open(f"{FOLDER}/{name}.poni", "w", encoding="utf-8") as copy:
                copy.write(source.read())
            save(name, ai, image, image < 0, bins, "2th_deg", polarization=0.99)


main()
