"""Independent checks of volumes, and scans that are not as they should be. Usage: tomography.py CHECK ARGUMENT..."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import hdf5plugin  # noqa: F401  registers the filters
import numpy as np

from real_data import backproject


def sinogram(master, row, energy=None):
    """Line integrals of a stored run's row in double precision, angles, and whether each projection was stored."""
    with h5py.File(master) as h:
        key = h["entry/instrument/detector/image_key"][()]
        angles = h["entry/sample/rotation_angle"][()]
        data = h["entry/data/data"]
        dark, flat = data[key == 2].mean(0, dtype=float), data[key == 1].mean(0, dtype=float)
        frames = data[key == 0].astype(float)
    transmission = np.maximum((frames - dark) / (flat - dark), 1e-6)
    if energy is not None:
        transmission = paganin(transmission, **energy)
    return -np.log(np.maximum(transmission[:, row], 1e-6)), np.deg2rad(angles[key == 0]), angles[key != 2]


def paganin(transmission, pixel_um, energy_kev, distance_mm, delta_beta):
    """Paganin's filter with the edge going on, to twice the size."""
    count, rows, columns = transmission.shape
    wide = ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
    padded = np.pad(transmission, wide, mode="edge")
    f = np.add.outer(np.fft.fftfreq(2 * rows, pixel_um) ** 2, np.fft.fftfreq(2 * columns, pixel_um) ** 2)
    wavelength_um = 1.239841984e-3 / energy_kev
    gain = 1 / (1 + np.pi * wavelength_um * distance_mm * 1e3 * delta_beta * f)
    filtered = np.real(np.fft.ifft2(np.fft.fft2(padded) * gain))
    return filtered[:, rows // 2 : rows // 2 + rows, columns // 2 : columns // 2 + columns]


def volume(master, volume, row, name="xy"):
    """The volume against the live slice and against double precision; its layout; its averages."""
    row = int(row)
    with h5py.File(master) as h, h5py.File(volume) as v:
        live = h["entry/results/images/%s/%s" % (name, name)][()]
        data = v["entry/data/data"]
        assert v["entry/definition"][()].decode() == "NXtomoproc"
        required = ("title", "sample/name", "instrument/SOURCE/type", "instrument/SOURCE/name", "instrument/SOURCE/probe")
        process = ("program", "version", "date", "parameters/raw_file")
        for field in (*required, *("reconstruction/" + name for name in process), "data/x", "data/y", "data/z"):
            assert field in v["entry"], field
        assert data.chunks[0] <= 16 and data.shape[1:] == live.shape, (data.chunks, data.shape)
        axis = v["entry/reconstruction/parameters/rotation_axis_px"][()]
        slice_ = data[row].astype(float)
        averages = [v["entry/data_%d/data" % f] for f in (2, 4) if "data_%d" % f in v["entry"]]
        for factor, averaged in zip((2, 4), averages):
            block = data[:factor, 8 : 8 + factor, 12 : 12 + factor].mean()
            assert abs(averaged[0, 8 // factor, 12 // factor] - block) <= 1e-6, factor
        if "preview" in v["entry"]:
            assert abs(v["entry/preview/data"][()].mean() - data[()].mean()) < 0.05 * abs(data[()]).max()
    lines, theta, _ = sinogram(master, row)
    expected = backproject(lines, theta, axis)
    span = np.ptp(expected)
    report = {
        "against the live slice, of range": float(np.abs(slice_ - live).max() / span),
        "against float64, of range": float(np.abs(slice_ - expected).max() / span),
    }
    assert max(report.values()) <= 1e-5, report
    print(json.dumps(report))


def equal(one, other):
    with h5py.File(one) as a, h5py.File(other) as b:
        assert np.array_equal(a["entry/data/data"][()], b["entry/data/data"][()]), "the volumes differ"


# The simulated head: centre, half axes, turn about the axis in degrees, value (Kak & Slaney 1988, table 3.1, Toft 1996, and two more).
HEAD = [
    ((0, 0, 0), (0.69, 0.92, 0.90), 0, 1.0),
    ((0, -0.0184, 0), (0.6624, 0.874, 0.88), 0, -0.8),
    ((-0.22, 0, -0.25), (0.41, 0.16, 0.21), 108, -0.2),
    ((0.22, 0, -0.25), (0.31, 0.11, 0.22), 72, -0.2),
    ((0, 0.35, -0.25), (0.21, 0.25, 0.50), 0, 0.1),
    ((0, 0.1, -0.25), (0.046, 0.046, 0.046), 0, 0.1),
    ((-0.08, -0.65, -0.25), (0.046, 0.023, 0.02), 0, 0.1),
    ((0.06, -0.65, -0.25), (0.046, 0.023, 0.02), 90, 0.1),
    ((0.06, -0.105, 0.625), (0.056, 0.04, 0.1), 90, 0.2),
    ((0, 0.1, 0.625), (0.056, 0.056, 0.1), 0, -0.2),
    ((0.35, -0.45, 0), (0.04, 0.04, 0.6), 0, 0.8),
    ((-0.4, 0.35, 0.1), (0.03, 0.08, 0.25), 30, 0.6),
]


def head_lines(theta, columns, rows, row, axis):
    """Line integrals of the simulated head at a detector row, without noise: minus log of the transmission."""
    half = (min(axis, columns - 1 - axis) + 0.5) / 0.94
    u, z = (np.arange(columns) - axis) / half, (2 * row - (rows - 1)) / rows
    lines = np.zeros((theta.size, columns))
    for (x, y, height), (a, b, c), turn, value in HEAD:
        shrink2 = 1 - ((z - height) / c) ** 2
        if shrink2 <= 0:
            continue
        turned = theta - np.deg2rad(turn)
        reach2 = shrink2 * ((a * np.cos(turned)) ** 2 + (b * np.sin(turned)) ** 2)
        t = u - (x * np.cos(theta) + y * np.sin(theta))[:, None]
        chord = np.sqrt(np.maximum(0, reach2[:, None] - t**2))
        lines += (2 * value * a * b * shrink2 / reach2)[:, None] * chord
    return lines * 1.8 / 0.75


def survivors(clean_master, row, *faulted):
    """PSNR of volumes with lost projections and of their last live slices, and of the same projections in double precision without
    weights, against the head without noise; and the same of what is left after a blur of 4 pixels, where a missing projection shows.
    `faulted` is a volume and its scan's master, as often as there are such. The live slice is the volume's, though its weights were
    found while projections came."""
    from scipy.ndimage import gaussian_filter

    row = int(row)
    lines, theta, _ = sinogram(clean_master, row)
    with h5py.File(clean_master) as h:
        planned = h["entry/instrument/detector/image_key"][()] == 0
        rows = h["entry/data/data"].shape[1]
    made = {}
    for volume, master in zip(faulted[::2], faulted[1::2], strict=True):
        with h5py.File(master) as h, h5py.File(volume) as v:
            key = h["entry/instrument/detector/image_key"][()]
            axis = v["entry/reconstruction/parameters/rotation_axis_px"][()]
            found = v["entry/data/data"][row].astype(float)
            live = h["entry/results/images/xy/xy"][()].astype(float)
        came = (key == 0)[planned]
        again = (came.tobytes(), axis)
        if again not in made:
            truth = backproject(head_lines(theta, lines.shape[1], rows, row, axis), theta, axis)
            made = {again: (backproject(lines[came], theta[came], axis), truth)}
        plain, truth = made[again]

        def psnr(image, like=lambda image: image):
            ideal = like(truth)
            return float(20 * np.log10(np.ptp(ideal) / np.sqrt(np.mean((like(image) - ideal) ** 2))))

        blurred = lambda image: gaussian_filter(image, 4)
        report = {
            "lost": int((~came).sum()),
            "weighted dB": psnr(found),
            "live dB": psnr(live),
            "same projections dB": psnr(plain),
            "blurred, weighted dB": psnr(found, blurred),
            "blurred, same projections dB": psnr(plain, blurred),
            "live against the volume, of range": float(np.abs(live - found).max() / np.ptp(found)),
            "without weights, of range": float(np.abs(plain - found).max() / np.ptp(found)),
        }
        assert report["lost"] > 0 and report["weighted dB"] >= report["same projections dB"] - 0.5, report
        assert report["live dB"] >= report["same projections dB"] - 0.5, report
        assert report["blurred, weighted dB"] >= report["blurred, same projections dB"] + 0.5, report
        # The volume's weights are in single precision, and the order of sums is another one.
        assert report["live against the volume, of range"] <= 1e-5 < 1e-3 < report["without weights, of range"], report
        print(json.dumps(report))


def phase(master, row):
    row = int(row)
    settings = {"pixel_um": 1.0, "energy_kev": 20.0, "distance_mm": 50.0, "delta_beta": 200.0}
    lines, theta, _ = sinogram(master, row, settings)
    plain, _, _ = sinogram(master, row)
    with h5py.File(master) as h:
        found = h["entry/results/images/xy/xy"][()].astype(float)
        axis = h["entry/instrument/detector/x_rotation_axis_pixel_position"][()]
    expected, unfiltered = backproject(lines, theta, axis), backproject(plain, theta, axis)
    worst = np.abs(found - expected).max() / np.ptp(expected)
    assert worst <= 1e-4, worst
    assert np.abs(found - unfiltered).max() / np.ptp(expected) > 0.01, "the filter changed nothing"
    print(json.dumps({"against float64, of range": worst}))


def half(master, volume, row):
    """A half acquisition against opposite projections that are stitched first, in double precision."""
    row = int(row)
    lines, theta, _ = sinogram(master, row)
    with h5py.File(master) as h, h5py.File(volume) as v:
        live = h["entry/results/images/xy/xy"][()].astype(float)
        axis = int(h["entry/instrument/detector/x_rotation_axis_pixel_position"][()])
        found = v["entry/data/data"][row].astype(float)
    count, columns = lines.shape
    longer, shorter = columns - 1 - axis, axis
    d = np.arange(-longer, longer + 1)
    # Half at the axis, whole half a pixel beyond the end of the shorter side.
    share = np.clip((1 + d / (shorter + 0.5)) / 2, 0, 1)
    here, there = np.zeros((2, count // 2, d.size))
    for index in range(count // 2):
        here[index] = np.interp(axis + d, np.arange(columns), lines[index], left=0, right=0)
        there[index] = np.interp(axis - d, np.arange(columns), lines[index + count // 2], left=0, right=0)
    stitched = share * here + (1 - share) * there
    expected = backproject(stitched, theta[: count // 2], longer)
    # Beyond the longer side the filter's tails are cut at another column in either order.
    at = np.arange(expected.shape[0]) - (expected.shape[0] - 1) / 2
    inside = np.hypot(*np.meshgrid(at, at)) < longer - 1
    worst = lambda image: float(np.abs(image - expected)[inside].max() / np.ptp(expected))
    report = {"live": worst(live), "volume": worst(found)}
    assert found.shape == expected.shape and max(report.values()) <= 1e-5, (found.shape, expected.shape, report)
    print(json.dumps(report))


def half_by_itself(master, row, axis, volume=None):
    """Slices of a half acquisition about any axis: every projection weighted and back-projected alone, in double precision."""
    axis = float(axis)
    lines, theta, _ = sinogram(master, int(row))
    columns = lines.shape[1]
    near = min(axis, columns - 1 - axis)
    away = np.arange(columns) - axis if axis < (columns - 1) / 2 else axis - np.arange(columns)
    weighted = lines * np.clip(1 + away / (near + 0.5), 0, 2)
    with h5py.File(master) as h:
        images = {"live": h["entry/results/images/xy/xy"][()].astype(float)}
    if volume is not None:
        with h5py.File(volume) as v:
            images["volume"] = v["entry/data/data"][int(row)].astype(float)
            assert v["entry/reconstruction/parameters/rotation_axis_px"][()] == axis
    report = {}
    for name, found in images.items():
        width = found.shape[0]
        before = int(np.clip(round((width - 1) / 2 - axis), 0, width - columns))
        wide = np.pad(weighted, ((0, 0), (before, width - columns - before)))
        expected = backproject(wide, theta, axis + before)
        at = np.arange(width) - (width - 1) / 2
        inside = np.hypot(*np.meshgrid(at, at)) < columns - 1 - near - 2
        report[name] = float(np.abs(found - expected)[inside].max() / np.ptp(expected))
    print(json.dumps(report))
    assert max(report.values()) <= 1e-5, report


def half_axis(master, row, axis):
    """The axis of a half acquisition as algotom finds it, and as it is."""
    from algotom.prep.calculation import find_center_360

    lines, _, _ = sinogram(master, int(row))
    found = float(find_center_360(np.concatenate([lines, lines[:1]]).astype(np.float32), 20, ncore=1)[0])
    print(json.dumps({"algotom": found, "Fluxline": float(axis)}))
    assert abs(found - float(axis)) <= 0.5, found


def half_sirt(master, volume, row, axis, iterations):
    """SIRT of a half acquisition against ASTRA's, of what algotom stitches."""
    import astra
    from algotom.prep.conversion import convert_sinogram_360_to_180

    lines, theta, _ = sinogram(master, int(row))
    lines = np.concatenate([lines, lines[:1]]).astype(np.float32)
    whole, middle = convert_sinogram_360_to_180(lines, float(axis), norm=False)
    whole, theta = whole[: len(theta) // 2], theta[: len(theta) // 2]
    shift = int(round(2 * middle - (whole.shape[1] - 1)))
    whole = np.pad(whole, ((0, 0), (max(0, -shift), max(0, shift))))
    with h5py.File(volume) as v:
        found = v["entry/data/data"][int(row)].astype(float)
        assert json.loads(v["entry/reconstruction/parameters/json"][()])["method"] == "sirt"
    size = found.shape[0]
    grid = astra.create_vol_geom(size, size)
    geometry = astra.create_proj_geom("parallel", 1.0, whole.shape[1], -theta)
    out = astra.data2d.create("-vol", grid)
    config = astra.astra_dict("SIRT")
    config.update(
        ProjectorId=astra.create_projector("linear", geometry, grid),
        ProjectionDataId=astra.data2d.create("-sino", geometry, np.ascontiguousarray(whole)),
        ReconstructionDataId=out,
    )
    astra.algorithm.run(astra.algorithm.create(config), int(iterations))
    expected = astra.data2d.get(out)
    at = np.arange(size) - (size - 1) / 2
    inside = np.hypot(*np.meshgrid(at, at)) < size / 2 - 3
    away = float(np.sqrt(np.mean((found - expected)[inside] ** 2)) / np.ptp(expected[inside]))
    print(json.dumps({"against ASTRA of what algotom stitches, RMS of range": away, "size": size, "shift": shift}))
    assert away <= 1e-3, away


def stripes(master, row, axis, size, used=None):
    """A live slice whose stripes were taken away, against double precision: what the mean has over its median is left out."""
    from scipy.ndimage import median_filter

    lines, theta, _ = sinogram(master, int(row))
    used = len(theta) if used is None else int(used)
    lines, theta = lines[-used:], theta[-used:]
    mean = lines.mean(0)
    stripe = mean - median_filter(mean, int(size), mode="reflect") if int(size) > 1 else 0 * mean
    with h5py.File(master) as h:
        found = h["entry/results/images/xy/xy"][()].astype(float)
    expected, striped = backproject(lines - stripe, theta, float(axis)), backproject(lines, theta, float(axis))
    report = {
        "worst, of range": float(np.abs(found - expected).max() / np.ptp(expected)),
        "taken away, of range": float(np.abs(striped - expected).max() / np.ptp(expected)),
    }
    print(json.dumps(report))
    assert report["worst, of range"] <= 1e-4, report
    assert int(size) < 2 or report["taken away, of range"] > 1e-2, report


def better_live(cleaned, striped, clean, share):
    """A live slice nearer to the clean scan's than the one with stripes, by this share."""
    images = []
    for path in (cleaned, striped, clean):
        with h5py.File(path) as h:
            images.append(h["entry/results/images/xy/xy"][()].astype(float))
    away = [float(np.sqrt(np.mean((image - images[2]) ** 2)) / 0.02) for image in images[:2]]
    print(json.dumps({"with": away[0], "without": away[1]}))
    assert away[0] <= float(share) * away[1], away


def bad(folder):
    """Scans of 24 projections that lack something, as DXchange."""
    rng = np.random.default_rng(3)
    columns, rows, count = 48, 4, 24
    place = np.arange(columns) - 23.5
    disc = 0.05 * np.sqrt(np.maximum(0, 15.0**2 - place**2))

    def write(name, count=count, theta=None, flats=True, spoil=lambda data: data, kind=np.uint16, beam=lambda flats: flats):
        data = np.exp(-disc) * 1000 + 50 + rng.normal(0, 3, (count, rows, columns))
        theta = np.linspace(0, 180, count, endpoint=False) if theta is None else theta
        with h5py.File(os.path.join(folder, name + ".h5"), "w") as h:
            h["exchange/data"] = spoil(data.astype(kind))
            h["exchange/data_dark"] = np.full((3, rows, columns), 50, kind)
            if flats:
                h["exchange/data_white"] = beam(np.full((3, rows, columns), 1050, kind))
            if len(theta):
                h["exchange/theta"] = theta

    def spoiled(value):
        def spoil(data):
            data[:, :, 20:23] = value
            return data

        return spoil

    even = np.linspace(0, 180, count, endpoint=False)
    twice, missing = even.copy(), even.copy()
    twice[5] = twice[4]
    missing[[3, 9]] = np.nan
    write("good")
    write("no_flats", flats=False)
    write("seven", count=7)
    write("one", count=1)
    write("no_angles", theta=[])
    write("angles_not_numbers", theta=np.full(count, np.nan))
    write("flats_without_beam", beam=spoiled(50))
    write("twice", theta=twice)
    write("missing", theta=missing)
    write("zero", spoil=spoiled(50))
    write("negative", spoil=spoiled(10))
    write("nan", spoil=spoiled(np.nan), kind=np.float32)


def disc_scan(path, theta, change=None, flats=(1000,), columns=64, rows=3, middle=None):
    """A disc of 0.02 beside the axis, in the middle of the detector unless given, as DXchange, or, with flats of several moments, as NXtomo: before, between and after."""
    rng = np.random.default_rng(11)
    middle, radius, away = (columns - 1) / 2 if middle is None else middle, 0.3 * columns, 0.1 * columns
    place = np.arange(columns) - middle - away * np.cos(theta)[:, None]
    lines = 0.02 * 2 * np.sqrt(np.maximum(0, radius**2 - place**2))
    transmission = np.repeat(np.exp(-lines)[:, None, :], rows, axis=1)
    if change is not None:
        transmission = change(transmission, rng)
    profile = 1 + 0.2 * np.cos(np.arange(columns) / 9)
    if len(flats) == 1:
        with h5py.File(path, "w") as h:
            h["exchange/data"] = np.round(transmission * profile * flats[0] * 20).astype(np.uint16) + 50
            h["exchange/data_dark"] = np.full((2, rows, columns), 50, np.uint16)
            h["exchange/data_white"] = np.full((2, rows, columns), 50, np.uint16) + np.round(
                profile * flats[0] * 20
            ).astype(np.uint16)
            h["exchange/theta"] = np.rad2deg(theta)
        return
    # The beam becomes weaker from left to right and from moment to moment; a third of the projections lies between two.
    count = len(theta)
    blocks = np.array_split(np.arange(count), len(flats) - 1)
    frames, keys, angles = [np.full((rows, columns), 50.0)] * 2, [2, 2], [0.0, 0.0]
    beams, at = [], []
    place = 2
    for index, level in enumerate(flats):
        beam = level * 20 * (profile + index * 0.1 * np.linspace(-1, 1, columns))
        beams.append(beam)
        at.append(place + 0.5)
        frames += [np.repeat(50 + beam[None], rows, axis=0)] * 2
        keys, angles = keys + [1, 1], angles + [0.0, 0.0]
        place += 2
        if index < len(blocks):
            keys, angles = keys + [0] * len(blocks[index]), angles + list(np.rad2deg(theta[blocks[index]]))
            frames += [None] * len(blocks[index])
            place += len(blocks[index])
    at, beams = np.array(at), np.array(beams)
    number = 0
    for frame, key in enumerate(keys):
        if key == 0:
            beam = np.array([np.interp(frame, at, beams[:, column]) for column in range(columns)])
            frames[frame] = 50 + transmission[number] * beam
            number += 1
    with h5py.File(path, "w") as h:
        entry = h.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXtomo"
        detector = entry.create_group("instrument/detector")
        detector.attrs["NX_class"] = "NXdetector"
        detector["data"] = np.round(np.array(frames)).astype(np.uint16)
        detector["image_key"] = np.array(keys)
        entry["sample/rotation_angle"] = np.array(angles)
        entry["data/data"] = h5py.SoftLink("/entry/instrument/detector/data")
        entry["data/rotation_angle"] = h5py.SoftLink("/entry/sample/rotation_angle")
        entry["data/image_key"] = h5py.SoftLink("/entry/instrument/detector/image_key")


def prepared(folder):
    """Scans that want preparation, and the same ones without what is wrong with them."""
    even = np.linspace(0, np.pi, 90, endpoint=False)

    def striped(transmission, rng):
        transmission[:, :, [20, 33, 34, 47]] *= [1.04, 0.97, 0.97, 1.05]
        return transmission

    def struck(transmission, rng):
        for index in range(len(transmission)):
            transmission[index, 1, rng.integers(4, 60)] *= 1.8
        return transmission

    slopes = np.linspace(-1, 1, 32, endpoint=False)
    sloped = np.concatenate([np.arctan(slopes), np.arctan(slopes) + np.pi / 2])
    round_ = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    for name, theta, change, middle in (
        ("clean", even, None, None),
        ("striped", even, striped, None),
        ("struck", even, struck, None),
        ("sloped", sloped, None, None),
        ("edge", round_, None, 14.0),
        ("edge_sloped", np.concatenate([sloped, sloped + np.pi]), None, 14.0),
    ):
        disc_scan(os.path.join(folder, name + ".h5"), theta, change, middle=middle)
    disc_scan(os.path.join(folder, "drifting.nxs"), even, None, flats=(1000, 900, 850))

    # Six projections and a flat without their lower rows, as the ledger says.
    path = os.path.join(folder, "partial.nxs")
    disc_scan(path, even, None, flats=(1000, 1000))
    with h5py.File(path, "r+") as h:
        key = h["entry/instrument/detector/image_key"][()]
        state = np.ones(len(key), np.uint8)
        state[np.flatnonzero(key == 0)[[3, 20, 21, 44, 60, 89]]] = state[np.flatnonzero(key == 1)[1]] = 2
        for frame in np.flatnonzero(state == 2):
            h["entry/instrument/detector/data"][frame, 1:] = 65535
        h["entry/ledger/frame_state"] = state

    def dead(transmission, rng):
        transmission[:, :, [25, 40]] = rng.uniform(0.2, 2, (len(transmission), transmission.shape[1], 2))
        return transmission

    disc_scan(os.path.join(folder, "dead.h5"), even, dead)
    mask = np.zeros((3, 64), np.uint8)
    mask[:, [25, 40]] = 1
    np.save(os.path.join(folder, "mask.npy"), mask)


def truth(volume, row, columns=64):
    """A volume's slice against the disc that was drawn: values within it, around it, and how even they are."""
    with h5py.File(volume) as v:
        found = v["entry/data/data"][int(row)].astype(float)
    size = found.shape[0]
    at = np.arange(size) - (size - 1) / 2
    r = np.hypot(at[None, :] - 0.1 * columns, at[:, None])
    inside, around = r < 0.3 * columns - 3, (r > 0.3 * columns + 3) & (np.hypot(at[None, :], at[:, None]) < size / 2 - 1)
    return {
        "inside": float(found[inside].mean() / 0.02),
        "around": float(found[around].mean() / 0.02),
        "uneven": float(np.hypot(found[inside].std(), found[around].std()) / 0.02),
    }


def disc(volume, row, tolerance):
    report = truth(volume, row)
    print(json.dumps(report))
    assert abs(report["inside"] - 1) <= float(tolerance) and abs(report["around"]) <= float(tolerance), report


def better(volume, worse, clean, row, share):
    """Nearer to the clean scan's volume than the other one, by this share."""
    data = []
    for path in (volume, worse, clean):
        with h5py.File(path) as v:
            data.append(v["entry/data/data"][int(row)].astype(float))
    away = [float(np.sqrt(np.mean((image - data[2]) ** 2)) / 0.02) for image in data[:2]]
    print(json.dumps({"with": away[0], "without": away[1]}))
    assert away[0] <= float(share) * away[1], away


def method(volume, reference, name, tolerance):
    """A volume against another method's, over the circle that every projection sees; what it was made with is recorded."""
    with h5py.File(volume) as v, h5py.File(reference) as r:
        found, expected = v["entry/data/data"][()].astype(float), r["entry/data/data"][()].astype(float)
        parameters = json.loads(v["entry/reconstruction/parameters/json"][()])
    assert parameters["method"] == name, parameters
    at = np.arange(found.shape[1]) - (found.shape[1] - 1) / 2
    inside = np.hypot(*np.meshgrid(at, at)) < found.shape[1] / 2 - 2
    away = float(np.sqrt(np.mean((found - expected)[:, inside] ** 2)) / np.ptp(expected[:, inside]))
    print(json.dumps({"method": name, "against the other, RMS of range": away}))
    assert 0 < away <= float(tolerance), away


def oblique(master, like):
    """The oblique slice against the slice that it lies in: horizontal at row 10, or vertical through the axis."""
    with h5py.File(master) as h:
        image = lambda name: h["entry/results/images/%s/%s" % (name, name)][()].astype(float)
        found, expected = image("oblique"), image(like)
    if like == "xz":
        # It is as high as wide: rows above and below the detector are empty.
        above = (found.shape[0] - expected.shape[0]) // 2
        found = found[above : above + expected.shape[0]]
    worst = np.abs(found - expected).max() / np.ptp(expected)
    print(json.dumps({"like": like, "worst, of range": worst}))
    assert found.shape == expected.shape and worst <= 1e-4, worst


def window(master, row, axis, used):
    """A live slice against double precision over the last projections alone."""
    used = int(used)
    lines, theta, _ = sinogram(master, int(row))
    with h5py.File(master) as h:
        found = h["entry/results/images/xy/xy"][()].astype(float)
    expected = backproject(lines[-used:], theta[-used:], float(axis))
    worst = np.abs(found - expected).max() / np.ptp(expected)
    print(json.dumps({"projections": used, "worst, of range": worst}))
    assert worst <= 1e-4, worst


def alike(master, other, most):
    """That the slices of two scans differ by no more than `most` of their range, root mean square."""
    with h5py.File(master) as one, h5py.File(other) as two:
        names = sorted(one["entry/results/images"])
        both = [[h["entry/results/images"][name][name][()].astype(float) for name in names] for h in (one, two)]
    apart = {name: np.sqrt(np.mean((a - b) ** 2)) / np.ptp(a) for name, a, b in zip(names, *both)}
    print(json.dumps(apart))
    assert names and max(apart.values()) <= float(most), apart


def finite(volume):
    with h5py.File(volume) as v:
        data = v["entry/data/data"][()]
        assert np.isfinite(data).all() and np.ptp(data) > 0, volume


def large(binary, folder, size, count, memory_mib):
    """Memory of a volume of `size` rows and columns: the largest of a process, less that of one that only takes slices."""
    size, count, memory_mib = int(size), int(count), int(memory_mib)
    scan = os.path.join(folder, "large.h5")
    place = np.arange(size) - (size - 1) / 2
    disc = 3.0 / size * np.sqrt(np.maximum(0, (0.4 * size) ** 2 - place**2))
    frame = np.broadcast_to((np.exp(-disc) * 20000 + 100).astype(np.uint16), (size, size))
    with h5py.File(scan, "w") as h:
        for name, frames, value in (("data", count, None), ("data_dark", 2, 100), ("data_white", 2, 20100)):
            data = h.create_dataset("exchange/" + name, (frames, size, size), np.uint16, chunks=(1, size, size))
            for index in range(frames):
                data[index] = frame if value is None else value
        h["exchange/theta"] = np.linspace(0, 180, count, endpoint=False)

    store = os.path.join(folder, "large-store")

    def peak_mib(operations, path):
        config = os.path.join(folder, "large.toml")
        with open(config, "w") as file:
            file.write('[ring]\nslots = 16\nallow_transparent = true\n[[source]]\nkind = "replay"\npath = "none"\n')
            file.write('[store]\npath = "%s"\n[accelerator]\nbatch_limit = 2\n' % store)
            file.write('[recipe.ct]\ntechnique = "tomography"\noperations = %s\n' % json.dumps(operations))
            # Projections kept for live slices would hide what the volume takes.
            file.write("[recipe.ct.backproject]\nhistory_mib = 0\n")
            if "volume" in operations:
                file.write('[recipe.ct.volume]\nmemory_mib = %d\nformat = "none"\n' % memory_mib)
        out = subprocess.Popen([binary, "replay", path, "--config", config, "--json"], stdout=subprocess.PIPE)
        summary = json.load(out.stdout)
        _, status, usage = os.wait4(out.pid, 0)
        assert status == 0, summary
        return usage.ru_maxrss / 1024, summary

    live = ["correct", "backproject"]
    slices, summary = peak_mib(live, scan)
    # What is stored is read frame by frame, too, though its master shows all frames as one dataset.
    stored, _ = peak_mib(live, summary["files"][0])
    shutil.rmtree(store)
    volume, summary = peak_mib([*live, "volume"], scan)
    shutil.rmtree(store)
    os.remove(scan)
    results = summary["derived"]["results"]
    report = {
        "scan": "%d x %d x %d" % (count, size, size),
        "memory_mib": memory_mib,
        "peak MiB, slices only": round(slices),
        "peak MiB, from the stored scan": round(stored),
        "peak MiB, with the volume": round(volume),
        "passes": results["passes"],
        "summed while it was read": results["while_recording"]["projections"],
        "seconds": results["seconds"],
    }
    print(json.dumps(report))
    assert volume - slices <= memory_mib, report
    assert stored - slices <= size * size * count * 2 / 2**20 / 4, report


if __name__ == "__main__":
    checks = (volume, equal, survivors, phase, half, bad, finite, large)
    checks += (prepared, disc, better, method, oblique, window)
    checks += (half_by_itself, half_axis, half_sirt, stripes, better_live, alike)
    {check.__name__: check for check in checks}[sys.argv[1]](*sys.argv[2:])
