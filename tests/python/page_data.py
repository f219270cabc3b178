"""page_data.py FOLDER: what was saved over HTTP against the run's own files and against pyFAI."""

import json
import sys
from pathlib import Path

import h5py
import numpy
import pyFAI
import tifffile

folder = Path(sys.argv[1])
facts = json.loads((folder / "facts.json").read_text())
frame = facts["frame"]

# The files as they were saved lie beside each other, so the master finds its data.
(master,) = folder.glob("*_master.h5")
with h5py.File(master) as file:
    pixels = file["entry/data/data"][frame]
    tiff = tifffile.imread(folder / "frame.tiff")
    assert tiff.dtype == pixels.dtype and numpy.array_equal(tiff, pixels), "TIFF"

    results = file["entry/results"]
    curves = {"curve.csv": results["intensity/intensity"][frame], "mean.csv": results["final/intensity/intensity"][:]}
    for name, values in curves.items():
        heading, *lines = (folder / name).read_text().splitlines()
        assert heading.startswith("q (1/nm),intensity"), heading
        table = numpy.array([[float(cell or "nan") for cell in line.split(",")] for line in lines])
        assert table.shape[0] == 100, table.shape
        assert numpy.array_equal(table[:, 1].astype("f4"), values, equal_nan=True), name

    spots = facts["spots"]["spots"]
    assert len(spots) == numpy.isfinite(results["spot_row/spot_row"][frame]).sum()
    for key in ("row", "column", "intensity", "pixels"):
        stored = results[f"spot_{key}/spot_{key}"][frame][: len(spots)]
        assert numpy.array_equal(numpy.array([spot[key] for spot in spots], "f4"), stored), key

integrator = pyFAI.load(str(folder / "detector.poni"))
shape = (240, 300)
geometry = {name: numpy.array(facts["geometry"][name]) for name in ("origin_m", "slow_m", "fast_m")}
rows, columns = numpy.mgrid[: shape[0], : shape[1]]
places = geometry["origin_m"] + rows[..., None] * geometry["slow_m"] + columns[..., None] * geometry["fast_m"]
angle = numpy.arctan2(numpy.hypot(places[..., 0], places[..., 1]), places[..., 2])
worst = numpy.abs(angle - integrator.twoThetaArray(shape)).max()
# pyFAI keeps this array in single precision.
assert worst < 1e-6, worst
assert facts["geometry"]["wavelength_m"] == 1e-10
print(f"same: {len(spots)} spots, angles within {worst:.1e} rad")
