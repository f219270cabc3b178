"""Azimuthal integration by pyFAI's CSR engine in every mode, for the test of our own.

    azimuthal_modes.py FOLDER DATA

Writes cases into FOLDER: NAME.json (what was asked for), NAME.poni, NAME_raw.npy, NAME_mask.npy and, as the case has
them, NAME_dark.npy, NAME_flat.npy, NAME_corners.npy; and pyFAI's answer: NAME_radial.npy, NAME_azimuthal.npy (2-D),
NAME_intensity.npy, NAME_sigma.npy, NAME_count.npy, 2-D ones with the radius fastest. DATA is the folder of real data; cases of
what is not there are left out.

Every case has an integrator of its own: engines are cached inside. pyFAI keeps corners of pixels in single precision, 1e-3 of
a pixel; so that the splitting is compared and not that, it is given them in double precision.
"""

import gzip
import io
import json
import logging
import os
import sys

import fabio
import h5py
import hdf5plugin  # noqa: F401  (registers the filters)
import numpy as np
import pyFAI
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

logging.disable(logging.WARNING)
FOLDER, DATA = sys.argv[1], sys.argv[2]
SHAPE = (247, 310)


def give_corners(ai, shape, unit):
    """Radius and azimuth of all corners in double precision, where pyFAI looks for them."""
    if ai.detector.IS_CONTIGUOUS:
        row, column = np.mgrid[:shape[0] + 1, :shape[1] + 1].astype(float)
        row = shape[0] - row if ai.detector.orientation in (1, 2) else row
        column = shape[1] - column if ai.detector.orientation in (1, 4) else column
        vertex = np.stack([np.zeros(row.shape), row * ai.pixel1, column * ai.pixel2], axis=-1)
        zyx = np.stack([vertex[:-1, :-1], vertex[1:, :-1], vertex[1:, 1:], vertex[:-1, 1:]], axis=2)
    else:
        zyx = ai.detector.get_pixel_corners().astype(float)
    turn = np.asarray(ai.rotation_matrix())
    p = np.stack([zyx[..., 1] - ai.poni1, zyx[..., 2] - ai.poni2, zyx[..., 0] + ai.dist])
    t1, t2, t3 = np.einsum("ij,j...->i...", turn, p)
    chi = np.arctan2(t1, t2)
    if not ai.chiDiscAtPi:
        chi %= 2 * np.pi
    ai._cached_array[f"{unit.space}_corner"] = np.stack([unit.equation(t2, t1, t3, ai.wavelength), chi], axis=-1)
    if not ai.detector.IS_CONTIGUOUS:  # centres are in single precision, too
        t1, t2, t3 = t1.mean(-1), t2.mean(-1), t3.mean(-1)
        ai._cached_array[f"{unit.space}_center"] = unit.equation(t2, t1, t3, ai.wavelength)
        ai._cached_array["chi_center"] = np.arctan2(t1, t2)


def save(name, ai, raw, mask, bins, *, unit="q_nm^-1", splitting="no", errors="poisson", azimuthal_bins=None,
         azimuthal_range=None, clip=None, polarization=0.95, solid_angle=True, radial_range=None, saturation=None,
         dummy=None, delta_dummy=None, dark=None, flat=None, factor=1.0, corners=None, bars=None, engine="cython"):
    """One case. Saturated pixels are in pyFAI's static mask, so such cases name a range."""
    left_out = mask != 0 if saturation is None else (mask != 0) | (raw >= saturation)
    asked = {"mask": left_out.astype(np.int8), "unit": unit, "method": (splitting, "csr", engine),
             "correctSolidAngle": solid_angle, "polarization_factor": polarization, "error_model": errors,
             "radial_range": radial_range, "azimuth_range": azimuthal_range, "dummy": dummy,
             "delta_dummy": delta_dummy, "dark": dark, "flat": flat, "normalization_factor": factor}
    if azimuthal_range is not None and azimuthal_range[1] > 180:
        ai.setChiDiscAtZero()
    if splitting != "no" or corners is not None:
        give_corners(ai, raw.shape, pyFAI.units.to_unit(unit))
    if clip is not None:
        result = ai.sigma_clip_ng(raw, bins, thres=clip[0], max_iter=clip[1], **asked)
        sigma = result.sem
    elif azimuthal_bins is not None:
        if dark is not None:  # else pyFAI's 2-D adds the dark to the variance, which its 1-D does not
            asked["variance"] = np.maximum(raw, 1).astype(np.float32)
        result = ai.integrate2d_ng(raw, bins, azimuthal_bins, **asked)
        sigma = result.sigma
    else:
        result = ai.integrate1d_ng(raw, bins, **asked)
        sigma = result.sigma
    path = os.path.join(FOLDER, name)
    arrays = {"raw": raw, "mask": (mask != 0).astype(np.uint8), "radial": result.radial, "dark": dark, "flat": flat,
              "corners": corners, "intensity": result.intensity.astype(np.float64),
              "sigma": None if errors is None else sigma.astype(np.float64), "count": result.count.astype(np.float64),
              "azimuthal": None if azimuthal_bins is None else result.azimuthal}
    for key, values in arrays.items():
        if values is not None:
            np.save(f"{path}_{key}.npy", np.ascontiguousarray(values))
    if not os.path.exists(path + ".poni"):
        ai.save(path + ".poni")
    with open(path + ".json", "w", encoding="utf-8") as file:
        json.dump({"bins": bins, "unit": unit, "polarization": polarization, "range": radial_range,
                   "saturation": saturation, "dummy": dummy, "delta_dummy": delta_dummy, "factor": factor,
                   "dtype": raw.dtype.name, "splitting": splitting, "errors": errors or "none", "clip": clip,
                   "azimuthal_bins": azimuthal_bins, "azimuthal_range": azimuthal_range, "solid_angle": solid_angle,
                   "corners": corners is not None, "bars": bars}, file)


def module(rot=(0.02, -0.01, 0.3), dist=0.08, poni=(0.021, 0.0265), orientation=3):
    detector = Detector(172e-6, 172e-6, max_shape=SHAPE, orientation=orientation)
    return AzimuthalIntegrator(dist, *poni, *rot, detector=detector, wavelength=1.0e-10)


def pattern(random, center=(122.3, 153.8), bright=1.0):
    row, column = np.mgrid[:SHAPE[0], :SHAPE[1]]
    radius = np.hypot(row - center[0], column - center[1])
    rings = 200.0 * np.exp(-((radius % 30) - 15) ** 2 / 6) * np.exp(-radius / 120)
    return random.poisson(bright * (3.0 + rings))


def synthetic():
    random = np.random.default_rng(21)
    mask = (random.random(SHAPE) < 0.004)
    mask[100:112] = True
    counts = np.where(mask, 65535, pattern(random)).astype(np.uint16)
    splittings = ("no", "bbox", "full")
    for splitting in splittings:
        save(f"one_{splitting}", module(), counts, mask, 400, splitting=splitting)
        save(f"two_{splitting}", module(), counts, mask, 150, splitting=splitting, azimuthal_bins=72)
        save(f"azimuthal_errors_{splitting}", module(), counts, mask, 200, splitting=splitting, errors="azimuthal")
        save(f"no_errors_{splitting}", module(), counts, mask, 300, splitting=splitting, errors=None)
        save(f"part_{splitting}", module(), counts, mask, 250, splitting=splitting, azimuthal_range=(-35.0, 80.0),
             radial_range=(6.0, 14.0))
        save(f"cake_part_{splitting}", module(), counts, mask, 90, splitting=splitting, azimuthal_bins=40,
             azimuthal_range=(30.0, 125.0), radial_range=(3.0, 20.0))
        if splitting != "full":  # pyFAI 2026.9 then gives every bin a share of the pixels at azimuth 0
            save(f"cake_across_{splitting}", module(), counts, mask, 90, splitting=splitting, azimuthal_bins=40,
                 azimuthal_range=(120.0, 260.0), radial_range=(3.0, 20.0))
        save(f"tilted_{splitting}", module((0.5236, 0.1, 1.0)), counts, mask, 300, splitting=splitting, unit="2th_deg")
        save(f"tilted_two_{splitting}", module((0.5236, 0.1, 1.0)), counts, mask, 100, splitting=splitting, unit="2th_deg",
             azimuthal_bins=36)
        save(f"beside_{splitting}", module(poni=(-0.03, 0.09)), counts, mask, 300, splitting=splitting, unit="r_mm")
        save(f"beside_two_{splitting}", module(poni=(-0.03, 0.09)), counts, mask, 100, splitting=splitting, azimuthal_bins=60)
        hot = counts.copy()
        hot[random.random(SHAPE) < 0.02] = 60000
        save(f"saturated_{splitting}", module(), hot, mask, 300, splitting=splitting, saturation=60000, radial_range=(1.0, 21.0))
        save(f"saturated_two_{splitting}", module(), hot, mask, 80, splitting=splitting, saturation=60000,
             radial_range=(1.0, 21.0), azimuthal_bins=30, azimuthal_range=(-180.0, 180.0))
        signed = (counts.astype(np.int32) % 400 - 5).astype(np.int16)
        dark = random.normal(1.0, 0.2, SHAPE).astype(np.float32)
        flat = random.normal(1.0, 0.05, SHAPE).astype(np.float32)
        for kind, azimuthal_bins in (("", None), ("_two", 24)):
            save(f"signed{kind}_{splitting}", module(), signed, mask, 120, splitting=splitting, dummy=-2.0, delta_dummy=1.5, dark=dark,
                 flat=flat, factor=7.5, azimuthal_bins=azimuthal_bins)
        floats = (counts % 400 - 1.0 + random.normal(0, 0.3, SHAPE)).astype(np.float32)
        floats[::7, ::31] = np.nan
        save(f"floats_{splitting}", module(), floats, mask, 250, splitting=splitting, dark=dark, flat=flat)
        save(f"everything_masked_{splitting}", module(), counts, np.ones(SHAPE, dtype=bool), 50, splitting=splitting,
             radial_range=(1.0, 20.0))
        for orientation in (1, 2, 3, 4):
            for kind, azimuthal_bins in (("_two", 45),) if orientation in (1, 2) else (("", None),):
                save(f"orientation_{orientation}{kind}_{splitting}", module(orientation=orientation), counts, mask, 130,
                     splitting=splitting, azimuthal_bins=azimuthal_bins)
    # q_nm^-1, 2th_deg and r_mm are above.
    for unit, radial_range in (("q_A^-1", None), ("2th_rad", None), ("d_A", (3.0, 12.0))):
        for splitting in splittings if unit == "d_A" else ("bbox",):
            save(f"unit_{unit.replace('^', '')}_{splitting}", module(), counts, mask, 200, unit=unit, splitting=splitting,
                 radial_range=radial_range)
    for errors in ("azimuthal", "poisson", "hybrid"):
        spotted = counts.copy()
        spotted[random.random(SHAPE) < 0.01] += 900
        save(f"hybrid_{errors}", module(), counts, mask, 200, errors=errors)
        for cutoff, cycles in ((0.0, 5), (3.0, 10)):
            save(f"clip_{errors}_{cutoff:.0f}", module(), spotted, mask, 120, errors=errors, clip=(cutoff, cycles))


def corners_of(path, group):
    """pixel_corners of the panels of a HEXRD instrument: x to the right, y up, the beam along -z; panels are turned by
    the axis and angle of `tilt`. In pyFAI's frame axis 1 goes up here, so y stays, x stays, and z is turned round."""
    import yaml
    with open(path, encoding="utf-8") as file:
        detectors = {name: of for name, of in yaml.safe_load(file)["detectors"].items() if of["group"] == group}
    rows = max(of["pixels"]["roi"][0] + of["pixels"]["rows"] for of in detectors.values())
    columns = max(of["pixels"]["roi"][1] + of["pixels"]["columns"] for of in detectors.values())
    corners = np.zeros((rows, columns, 4, 3))
    distance = min(-of["transform"]["translation"][2] for of in detectors.values())
    for of in detectors.values():
        pixels, (row, column) = of["pixels"], of["pixels"]["roi"]
        tilt = np.array(of["transform"]["tilt"])
        angle = np.linalg.norm(tilt)
        k = tilt / angle
        cross = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
        turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
        down, right = np.mgrid[:pixels["rows"] + 1, :pixels["columns"] + 1]
        flat = np.stack([(right - pixels["columns"] / 2) * pixels["size"][1], (pixels["rows"] / 2 - down) * pixels["size"][0],
                         np.zeros(down.shape)], axis=-1)
        place = (flat @ turn.T + np.array(of["transform"]["translation"])) * 1e-3
        zyx = np.stack([-place[..., 2] - distance * 1e-3, place[..., 1], place[..., 0]], axis=-1)
        part = corners[row:row + pixels["rows"], column:column + pixels["columns"]]
        part[:, :, 0], part[:, :, 1] = zyx[:-1, :-1], zyx[1:, :-1]
        part[:, :, 2], part[:, :, 3] = zyx[1:, 1:], zyx[:-1, 1:]
    return corners.astype(np.float32), distance * 1e-3


def first_frame(path):
    """The first picture of the only stack of pictures in an HDF5 file."""
    found = []

    def look(_, item):
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and min(item.shape[-2:]) > 100:
            found.append(item[0] if item.ndim == 3 else item[()])
    with h5py.File(path) as file:
        file.visititems(look)
    return found[0]


def real():
    folder = os.path.join(DATA, "pw-ceo2-dioptas")
    frame = os.path.join(folder, "CeO2_Pilatus1M.tif.gz")
    if os.path.exists(frame):
        with gzip.open(frame) as file:
            image = fabio.tifimage.TifImage().read(io.BytesIO(file.read())).data
        image = np.ascontiguousarray(image[::-1]).astype(np.int32)

        def ceo2():
            ai = pyFAI.load(os.path.join(folder, "CeO2_Pilatus1M.poni"))
            ai.detector = Detector(ai.pixel1, ai.pixel2, max_shape=image.shape, orientation=3)
            return ai
        save("ceo2_full", ceo2(), image, image < 0, 1500, unit="2th_deg", splitting="full")
        save("ceo2_two_bbox", ceo2(), image, image < 0, 400, unit="2th_deg", splitting="bbox", azimuthal_bins=120)
        save("ceo2_clip", ceo2(), image, image < 0, 1000, unit="2th_deg", errors="azimuthal", clip=(3.0, 5))
    folder = os.path.join(DATA, "pw-ceria-hexrd")
    if os.path.isdir(folder):
        image = first_frame(os.path.join(folder, "ceria_50x30_740mm_000005_Pilatus2M.hdf5")).astype(np.int32)
        detector = Detector(172e-6, 172e-6, max_shape=image.shape, orientation=3)
        ai = AzimuthalIntegrator(0.74, 0.144, 0.127, 0.01, -0.02, 0.0, detector=detector, wavelength=1.7e-11)
        save("ceria_bbox", ai, image, image < 0, 1500, splitting="bbox", unit="2th_deg")
        image = first_frame(os.path.join(folder, "ceria_ff1.h5")).astype(np.float32)
        corners, distance = corners_of(os.path.join(folder, "dexelas.yml"), "ff1")
        detector = Detector(74.8e-6, 74.8e-6, max_shape=image.shape, orientation=3)
        detector.set_pixel_corners(corners)
        detector.IS_FLAT, detector.uniform_pixel, detector.IS_CONTIGUOUS = False, False, False
        ai = AzimuthalIntegrator(distance, 0.0, 0.0, detector=detector, wavelength=4.1606e-11)
        save("panels_bbox", ai, image, image < 0, 800, splitting="bbox", solid_angle=False, corners=corners)


synthetic()
real()
