"""DIALS reads a stored run: what it finds in ours and in the detector's own file.

    dials_files.py ROOT CBF MASTER FOLDER

ROOT is where Debian's packages of DIALS are unpacked, CBF the detector's file that was replayed (.gz or .bz2), MASTER the run's. By
`dials.import` and `dials.find_spots`, both with their defaults: geometry, beam, strong pixels and spots must be the same, and as many
spots as Fluxline counted.
"""
import bz2
import gzip
import json
import os
import re
import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np

root, cbf, master, folder = sys.argv[1:]
libraries = root + "/usr/lib/x86_64-linux-gnu"
environment = dict(
    os.environ,
    PYTHONPATH=root + "/usr/lib/python3/dist-packages",
    PYTHONNOUSERSITE="1",
    LIBTBX_BUILD=root + "/usr/lib/cctbx/python3.11",
    LD_LIBRARY_PATH=":".join([libraries, libraries + "/blas", libraries + "/lapack"]),
    HDF5_PLUGIN_PATH=hdf5plugin.PLUGIN_PATH,
)
plain = os.path.join(folder, "frame_0001.cbf")
with (bz2 if cbf.endswith("bz2") else gzip).open(cbf) as file, open(plain, "wb") as out:
    out.write(file.read())


def said_by(program, *arguments, place):
    command = ["/usr/bin/python3.11", root + "/usr/bin/" + program, *arguments]
    ran = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    return ran.stdout


def seen(name, file):
    place = os.path.join(folder, name)
    os.makedirs(place)
    said_by("dials.import", file, place=place)
    said = said_by("dials.find_spots", "imported.expt", "nproc=1", place=place)
    counts = {
        what: int(re.search(pattern, said).group(1))
        for what, pattern in {
            "strong pixels": r"Found (\d+) strong pixels",
            "spots before filtering": r"Extracted (\d+) spots",
            "spots": r"(\d+) spots found on 1 image",
        }.items()
    }
    with open(os.path.join(place, "imported.expt")) as expt:
        models = json.load(expt)
    return counts, models["detector"][0]["panels"][0], models["beam"][0]


counts, panel, beam = seen("own", plain)
ours, our_panel, our_beam = seen("run", os.path.abspath(master))
assert ours == counts, (ours, counts)
for key in ("pixel_size", "image_size", "origin", "fast_axis", "slow_axis", "thickness"):
    assert np.allclose(panel[key], our_panel[key], atol=1e-3), (key, panel[key], our_panel[key])
assert abs(beam["wavelength"] - our_beam["wavelength"]) < 1e-6, (beam, our_beam)
with h5py.File(master) as file:
    counted = int(file["entry/results/scalars/spots"][0])
print(f"DIALS on the detector's file and on ours: {counts}; Fluxline counts {counted} spots")
assert counted == counts["spots"]
