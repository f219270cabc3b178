"""Independent checks of runs on real data. Usage: real_data.py CHECK ARGUMENT..., see the functions at the end."""

import glob
import gzip
import json
import os
import sys

import h5py
import hdf5plugin  # noqa: F401  registers the filters
import numpy as np


def master(folder):
    (path,) = glob.glob(os.path.join(folder, "*_master.h5"))
    return path


def correct(file):
    """Line integrals of a DXchange file in double precision: rows, angles, columns."""
    with h5py.File(file) as h:
        data, dark, flat = (h["exchange/" + k][()].astype(float) for k in ("data", "data_dark", "data_white"))
        theta = np.deg2rad(h["exchange/theta"][()])
    dark, flat = dark.mean(0), flat.mean(0)
    transmission = (data - dark) / (flat - dark)
    bad = (flat - dark <= 0)[None] | (transmission <= 0)
    return np.where(bad, 0, -np.log(np.maximum(transmission, 1e-6))).transpose(1, 0, 2), theta


def ramp(columns):
    """Twice the transform of the ramp's samples (Kak & Slaney)."""
    padded = 1 << (2 * columns - 1).bit_length()
    n = np.fft.fftfreq(padded, 1 / padded)
    samples = np.zeros(padded)
    samples[0] = 0.25
    odd = n % 2 != 0
    samples[odd] = -1 / (np.pi * n[odd]) ** 2
    return 2 * np.real(np.fft.fft(samples)), padded


def backproject(sinogram, theta, axis):
    """Filtered back-projection in double precision, linear interpolation, x along rows, y down them."""
    angles, columns = sinogram.shape
    response, padded = ramp(columns)
    filtered = np.real(np.fft.ifft(np.fft.fft(sinogram, padded, axis=1) * response, axis=1))[:, :columns]
    place = np.arange(columns) - (columns - 1) / 2
    x, y = np.meshgrid(place, place)
    slice_ = np.zeros((columns, columns))
    for row, angle in zip(filtered, theta):
        u = x * np.cos(angle) + y * np.sin(angle) + axis
        slice_ += np.interp(u, np.arange(-1, columns + 1), np.concatenate([[0], row, [0]]), left=0, right=0)
    return slice_ * np.pi / (2 * angles)


def astra_fbp(sinogram, theta, axis):
    """ASTRA's CPU strip FBP of the same slice, in the same orientation."""
    import astra

    columns = sinogram.shape[1]
    # ASTRA has its axis in the middle: zeros on one side bring it there.
    shift = 2 * axis - (columns - 1)
    assert shift == int(shift), "the axis must lie on a pixel or between two"
    sinogram = np.pad(sinogram, ((0, 0), (max(0, int(-shift)), max(0, int(shift)))))
    volume = astra.create_vol_geom(columns, columns)
    # Its y grows upwards, ours down the picture.
    geometry = astra.create_proj_geom("parallel", 1.0, sinogram.shape[1], -theta)
    projector = astra.create_projector("strip", geometry, volume)
    data = astra.data2d.create("-sino", geometry, np.ascontiguousarray(sinogram, np.float32))
    out = astra.data2d.create("-vol", volume)
    config = astra.astra_dict("FBP")
    config.update(ProjectorId=projector, ProjectionDataId=data, ReconstructionDataId=out)
    algorithm = astra.algorithm.create(config)
    astra.algorithm.run(algorithm)
    return astra.data2d.get(out)


def tooth(file, folder, axis, picture):
    axis = float(axis)
    sinograms, theta = correct(file)
    columns = sinograms.shape[2]
    place = np.arange(columns) - (columns - 1) / 2
    circle = np.hypot(*np.meshgrid(place, place)) < columns / 2 - abs(axis - (columns - 1) / 2) - 2
    with h5py.File(master(folder)) as h:
        found = [h["entry/results/images/xy_%d/xy_%d" % (row, row)][()].astype(float) for row in range(2)]
        assert list(h["entry/instrument/detector/image_key"][:25]) == [2] * 10 + [1] * 10 + [0] * 5
    report = {}
    for row in range(2):
        expected = backproject(sinograms[row], theta, axis)
        span = np.ptp(expected)
        worst = np.abs(found[row] - expected).max() / span
        other = astra_fbp(sinograms[row], theta, axis)
        rmse = np.sqrt(np.mean((found[row] - other)[circle] ** 2)) / np.ptp(other[circle])
        report["row %d" % row] = {"against float64, of range": worst, "against ASTRA strip, RMSE of range": rmse}
        assert worst <= 1e-5, report
        assert rmse <= 3e-3, report
    if picture != "-":
        from PIL import Image

        low, high = np.percentile(found[0][circle], [0.5, 99.8])
        grey = np.clip((found[0] - low) / (high - low), 0, 1) * 255
        Image.fromarray(np.where(circle, grey, 0).astype(np.uint8)).save(picture)
    print(json.dumps(report))


def tooth_volume(file, volume, axis, method):
    """Slices of the volume against ASTRA's strip FBP, algotom's FBP, and double precision."""
    from algotom.rec.reconstruction import fbp_reconstruction

    axis = float(axis)
    sinograms, theta = correct(file)
    columns = sinograms.shape[2]
    place = np.arange(columns) - (columns - 1) / 2
    circle = np.hypot(*np.meshgrid(place, place)) < columns / 2 - abs(axis - (columns - 1) / 2) - 2
    with h5py.File(volume) as v:
        found = v["entry/data/data"][()].astype(float)
        assert json.loads(v["entry/reconstruction/parameters/json"][()])["method"] == method
    report = {}
    for row in range(2):
        others = {
            "float64": backproject(sinograms[row], theta, axis),
            "ASTRA strip": astra_fbp(sinograms[row], theta, axis),
            # Its y grows upwards.
            "algotom": fbp_reconstruction(
                sinograms[row].astype(np.float32), axis, angles=theta, ratio=None, filter_name=None, apply_log=False,
                gpu=False, ncore=1)[::-1],
        }
        away = lambda other: float(np.sqrt(np.mean((found[row] - other)[circle] ** 2)) / np.ptp(other[circle]))
        report["row %d" % row] = {name: away(other) for name, other in others.items()}
    print(json.dumps({"method": method, "RMSE of range": report}))
    direct = {"float64": 1e-5, "ASTRA strip": 3e-3, "algotom": 3e-3}
    # Between columns it interpolates otherwise than they do.
    fourier = {"float64": 1e-2, "ASTRA strip": 1.2e-2, "algotom": 1.2e-2}
    for name, bar in (direct if method == "backprojection" else fourier).items():
        assert all(row[name] <= bar for row in report.values()), (name, report)


def ceo2_prepare(tif_gz, poni, out):
    """Mask and a .poni whose orientation 2 flips the rows, as this data set needs."""
    import fabio

    with gzip.open(tif_gz) as packed, open(os.path.join(out, "ceo2.tif"), "wb") as plain:
        plain.write(packed.read())
    image = fabio.open(os.path.join(out, "ceo2.tif")).data
    np.save(os.path.join(out, "mask.npy"), (image < 0).astype(np.uint8))
    values = dict(line.split(":", 1) for line in open(poni) if ":" in line and not line.startswith("#"))
    config = {"pixel1": 172e-6, "pixel2": 172e-6, "max_shape": list(image.shape), "orientation": 2}
    with open(os.path.join(out, "ceo2.poni"), "w") as file:
        file.write("poni_version: 2.1\nDetector: Detector\nDetector_config: %s\n" % json.dumps(config))
        for key in ("Distance", "Poni1", "Poni2", "Rot1", "Rot2", "Rot3", "Wavelength"):
            file.write("%s: %s\n" % (key, values[key].strip()))


def peaks(angle, intensity, wavelength):
    """Positions of CeO2's strong lines in degrees: a Gaussian on a slope, fitted around each."""
    from scipy.optimize import curve_fit

    def line(x, height, center, width, offset, slope):
        return height * np.exp(-0.5 * ((x - center) / width) ** 2) + offset + slope * (x - center)

    found = []
    for squares in (3, 4, 8, 11, 12, 16, 19):  # h^2 + k^2 + l^2; a = 5.4113 A
        expected = 2 * np.rad2deg(np.arcsin(wavelength / 2 * np.sqrt(squares) / 5.4113e-10))
        near = np.abs(angle - expected) < 0.2
        x, y = angle[near], intensity[near]
        start = (np.ptp(y), x[np.argmax(y)], 0.04, y.min(), 0)
        found.append(curve_fit(line, x, y, start)[0][1])
    return np.array(found)


def ceo2(out, folder, xy):
    import fabio
    import pyFAI

    image = fabio.open(os.path.join(out, "ceo2.tif")).data
    mask = np.load(os.path.join(out, "mask.npy"))
    with h5py.File(master(folder)) as h:
        results = h["entry/results"]
        intensity = results["intensity/intensity"][0].astype(float)
        errors = results["intensity/intensity_errors"][0].astype(float)
        counts = results["intensity_pixels/intensity_pixels"][0].astype(float)
        axis = results["intensity/2theta"][()]
    poni = open(os.path.join(out, "ceo2.poni")).read().replace('"orientation": 2', '"orientation": 3')
    upright = os.path.join(out, "upright.poni")
    with open(upright, "w") as file:
        file.write(poni)
    integrator = pyFAI.load(upright)
    expected = integrator.integrate1d_ng(
        image[::-1], len(axis), mask=mask[::-1], unit="2th_deg", method=("no", "csr", "cython"),
        error_model="poisson", correctSolidAngle=True, dummy=None,
    )
    assert np.abs(axis / expected.radial - 1).max() < 1e-9
    assert np.array_equal(counts, expected.count), np.abs(counts - expected.count).max()
    good = expected.count > 1
    scale = np.maximum(np.abs(expected.intensity), 1e-9)
    worst = (np.abs(intensity - expected.intensity) / scale)[good].max()
    worst_errors = (np.abs(errors - expected.sigma) / np.maximum(expected.sigma, 1e-9))[good].max()
    assert worst <= 1e-5, worst
    assert worst_errors <= 1e-4, worst_errors
    reference = np.loadtxt(xy)
    ours = peaks(axis, intensity, integrator.wavelength)
    theirs = peaks(reference[:, 0], reference[:, 1], integrator.wavelength)
    shift = np.abs(ours - theirs).max()
    assert shift < 0.005, list(zip(ours, theirs))
    print(json.dumps({"pyFAI": pyFAI.version, "intensity": worst, "errors": worst_errors, "peaks, degrees": shift}))


def read_messages(folder):
    import cbor2

    for path in sorted(glob.glob(os.path.join(folder, "msg_*.cbor.gz"))):
        with gzip.open(path) as file:
            yield cbor2.loads(file.read())


def nxmx_make(messages, out):
    """An NXmx file with the detector's own compressed chunks, from a recorded DECTRIS stream."""
    path = os.path.join(out, "stream.h5")
    chunks, start = [], None
    for message in read_messages(messages):
        if message["type"] == "start":
            start = message
        if message["type"] == "image":
            value = next(iter(message["data"].values()))
            # multi-dimensional array > typed array > compressed bytes
            (rows, columns), typed = value.value
            chunks.append((rows, columns, typed.value.value[2]))
    rows, columns, _ = chunks[0]
    with h5py.File(path, "w") as h:
        entry = h.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXmx"
        detector = entry.create_group("instrument/detector")
        entry["instrument"].attrs["NX_class"] = "NXinstrument"
        for key in ("x_pixel_size", "y_pixel_size"):
            detector[key] = 75e-6
            detector[key].attrs["units"] = "m"
        detector["distance"] = 0.1
        detector["distance"].attrs["units"] = "m"
        detector["beam_center_x"], detector["beam_center_y"] = 512.0, 530.0
        detector["description"] = "EIGER1 1M"
        beam = entry["instrument"].create_group("beam")
        beam["incident_wavelength"] = 12.39842 / 8.0
        beam["incident_wavelength"].attrs["units"] = "angstrom"
        mask = np.zeros((rows, columns), "u4")
        mask[514:551] = 1
        detector["pixel_mask"] = mask
        data = entry.create_group("data").create_dataset(
            "data", (len(chunks), rows, columns), "u4", chunks=(1, rows, columns), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        for number, (_, _, chunk) in enumerate(chunks):
            data.id.write_direct_chunk((number, 0, 0), bytes(chunk))
    print(start is not None, len(chunks))


def tiff_make(out):
    import tifffile

    random = np.random.default_rng(3)
    for number in range(7):
        tifffile.imwrite(os.path.join(out, "scan_%03d.tif" % (number + 8)), random.integers(0, 4000, (120, 90), "u2"))


def equal(folder, kind, *origin):
    """Every stored frame is the origin's, bit for bit."""
    import fabio

    with h5py.File(master(folder)) as h:
        stored = h["entry/data/data"][()]
    if kind == "hdf5":
        with h5py.File(origin[0]) as h:
            expected = h[origin[1]][()]
    else:
        import bz2

        expected = []
        for path in origin:
            if path.endswith(".bz2"):
                plain = os.path.join(os.path.dirname(folder.rstrip("/")), os.path.basename(path)[:-4])
                with bz2.open(path) as packed, open(plain, "wb") as file:
                    file.write(packed.read())
                path = plain
            expected.append(fabio.open(path).data)
        expected = np.stack(expected)
    assert stored.dtype == expected.dtype and stored.shape == expected.shape, (stored.dtype, expected.dtype, stored.shape)
    assert np.array_equal(stored, expected)
    print(stored.shape, stored.dtype)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
