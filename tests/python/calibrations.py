"""Calibrations by software that is not Fluxline's: NumPy in float64, h5py.

Usage: calibrations.py make FOLDER
       calibrations.py check FOLDER MASTER PEDESTAL0 PEDESTAL1 PEDESTAL2
       calibrations.py curve MASTER MASKED
       calibrations.py rates FOLDER
       calibrations.py rate MASTER FILE
       calibrations.py frames FOLDER
       calibrations.py odd MASTER
       calibrations.py absurd FOLDER
       calibrations.py beside FOLDER MASTER
       calibrations.py wide MASTER MASTER
       calibrations.py drifting FOLDER
       calibrations.py followed FOLDER MASTER
       calibrations.py apart FOLDER FOLLOWED STILL
"""

import json
import sys

import h5py
import hdf5plugin  # noqa: F401
import numpy as np

SHAPE = (512, 1024)
ENERGY_KEV = 12.4


def make(folder):
    rng = np.random.default_rng(3)
    pedestals = [rng.uniform(low, high, SHAPE) for low, high in [(2000, 3000), (14800, 15200), (15300, 15700)]]
    for gain, bits in enumerate([0, 1, 3]):
        frames = np.rint(rng.normal(pedestals[gain], 12, (12, *SHAPE))).astype("<u2")
        frames |= np.uint16(bits << 14)
        # Words in another gain say nothing of this one, and some pixels have none at all.
        frames[:, 0, :4] = (frames[:, 0, :4] & 0x3FFF) | np.uint16([1, 0, 0][gain] << 14)
        frames[3, 100, :50] = 0xFFFF
        with h5py.File(f"{folder}/pedestal{gain}.h5", "w") as file:
            file["data"] = frames
    gains = np.empty((6, *SHAPE))
    for plane, typical in enumerate([41.0, -1.439, -0.1145, 100.0, -1.439, -0.1145]):
        gains[plane] = typical * rng.uniform(0.95, 1.05, SHAPE)
    gains[0, 7, :30] = 0
    gains[1, 9, 5] = np.nan
    np.save(f"{folder}/gains.npy", gains)
    with h5py.File(f"{folder}/gains.h5", "w") as file:
        file["gains"] = gains
    words = np.empty((12, *SHAPE), "<u2")
    for frame in words:
        gain = rng.choice([0, 1, 3], SHAPE, p=[0.99, 0.008, 0.002])
        at = np.choose(np.minimum(gain, 2), pedestals)
        move = np.choose(np.minimum(gain, 2), [rng.exponential(900, SHAPE), -rng.exponential(4000, SHAPE),
                                               -rng.exponential(4000, SHAPE)])
        frame[:] = np.clip(at + move, 1, 16382).astype("<u2") | (gain << 14).astype("<u2")
        frame[20, :6] = [0xFFFF, 0xC000, 0x4000, 0x8123, 0xC000, 0xFFFF]
        frame[9, 5] = 0x7000
    with h5py.File(f"{folder}/words.h5", "w") as file:
        file["data"] = words


def photons(words, pedestals, gains):
    """Photons in float64; NaN for errors, infinity for saturated pixels."""
    gain = words >> 14
    index = np.array([0, 1, 0, 2])[gain]
    adu = (words & 0x3FFF).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (adu - np.take_along_axis(pedestals, index[None], 0)[0])
        value = value / (np.take_along_axis(gains[:3], index[None], 0)[0] * ENERGY_KEV)
    value[~np.isfinite(value)] = np.nan
    value[words == 0xC000] = np.inf
    value[(gain == 2) | (words == 0xFFFF) | (words == 0x4000)] = np.nan
    return value


def check(folder, master, *files):
    pedestals = np.array([np.load(file).astype(float) for file in files])
    for gain, bits in enumerate([0, 1, 3]):
        with h5py.File(f"{folder}/pedestal{gain}.h5") as file:
            frames = file["data"][:]
        good = (frames >> 14 == bits) & (frames != 0xFFFF)
        with np.errstate(invalid="ignore"):
            mean = np.where(good, frames & 0x3FFF, 0).sum(0) / good.sum(0)
        np.testing.assert_allclose(pedestals[gain], mean, rtol=1e-7)
    gains = np.load(f"{folder}/gains.npy")
    masked = ~np.isfinite(pedestals[0]) | (gains[0] == 0)
    with h5py.File(f"{folder}/words.h5") as file:
        words = file["data"][:]
    with h5py.File(master) as file:
        results = file["entry/results/scalars"]
        mask = file["entry/instrument/detector/pixel_mask"][:]
        assert ((mask & 0xFFFF != 0) == masked).all(), "pixels without a calibration are dead in the mask"
        np.testing.assert_array_equal(file["entry/data/data"][:], words)
        used = json.loads(file["entry/process/parameters/json"][()])["calibrations"]
        for number, frame in enumerate(words):
            value = photons(frame, pedestals, gains)
            good = ~masked & np.isfinite(value)
            expected = {"sum": value[good].sum(), "max": value[good].max(), "valid_pixels": good.sum(),
                        "saturated_pixels": (np.isinf(value) & ~masked).sum(),
                        "invalid_pixels": (np.isnan(value) & ~masked).sum(),
                        "wrong_gain_pixels": (np.isnan(value) & ~masked).sum(),
                        "gain1_pixels": ((frame >> 14 == 1) & ~masked).sum(),
                        "gain2_pixels": ((frame >> 14 == 3) & ~masked).sum()}
            for name, number_expected in expected.items():
                np.testing.assert_allclose(results[name][number], number_expected, rtol=1e-6, err_msg=f"{name} {number}")
        finite(results.parent)
    print(json.dumps({"frames": len(words), "calibrations": [entry["kind"] for entry in used],
                      "valid": int(good.sum())}))


def finite(results):
    """No curve, of a frame or of the run, holds what is no number."""
    curves = []

    def look(name, item):
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and "intensity" in name and "spot" not in name:
            curves.append(name)
            assert np.isfinite(item[:]).all(), f"{name} holds what is no number"

    results.visititems(look)
    assert any(name.startswith("final/") for name in curves) and len(curves) > 1, curves


def curve(master, masked):
    """Nothing in a file's curves or sums is NaN, and so many pixels are masked."""
    with h5py.File(master) as file:
        mask = file["entry/instrument/detector/pixel_mask"][:]
        assert (mask & 0xFFFF != 0).sum() == int(masked), (mask & 0xFFFF != 0).sum()
        results = file["entry/results"]
        names = []

        def look(name, item):
            if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
                names.append(name)
                assert np.isfinite(item[:]).all(), f"{name} holds what is no number"

        results.visititems(look)
        print(json.dumps({"datasets": names, "sums": results["scalars/sum"][:].tolist()}))


def rates(folder):
    """Counts of a counting detector with its own table: corrected already, not yet, and without a table."""
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 900, (4, 32, 48)).astype("<u2")
    counts[:, 3, :3] = [65535, 990, 1200]
    table = np.rint(np.arange(1000) * (1 + np.arange(1000) / 5000.0))
    for name, applied, has_table in [("applied", 1, True), ("table", 0, True), ("bare", 0, False)]:
        with h5py.File(f"{folder}/{name}.h5", "w") as file:
            entry = file.create_group("entry")
            entry.attrs["NX_class"] = "NXentry"
            data = entry.create_group("data")
            data.attrs["NX_class"] = "NXdata"
            data["data"] = counts
            instrument = entry.create_group("instrument")
            instrument.attrs["NX_class"] = "NXinstrument"
            detector = instrument.create_group("detector")
            detector.attrs["NX_class"] = "NXdetector"
            detector["countrate_correction_applied"] = np.int32(applied)
            detector["saturation_value"] = np.float64(1100)
            detector["count_time"] = 1e-3
            detector["count_time"].attrs["units"] = "s"
            if has_table:
                detector["countrate_correction_lookup_table"] = table


def rate(master, file):
    """Sums of a run against NumPy's, by how the file was made."""
    with h5py.File(file) as source:
        counts = source["entry/data/data"][:].astype(float)
        detector = source["entry/instrument/detector"]
        applied = detector["countrate_correction_applied"][()]
        table = detector["countrate_correction_lookup_table"][:] if "countrate_correction_lookup_table" in detector else None
    valid = (counts != 65535) & (counts < 1100)
    value = counts.copy()
    if not applied:
        if table is not None:
            valid &= counts < len(table)
            value[valid] = table[counts[valid].astype(int)]
        else:
            # 200 ns of dead time, not paralyzable, in 1 ms.
            value[valid] = counts[valid] / (1 - counts[valid] * 200e-9 / 1e-3)
    expected = [(frame[good].sum(), good.sum()) for frame, good in zip(value, valid)]
    with h5py.File(master) as stored:
        np.testing.assert_array_equal(stored["entry/data/data"][:], counts)
        results = stored["entry/results/scalars"]
        np.testing.assert_allclose(results["sum"][:], [total for total, _ in expected], rtol=1e-5)
        np.testing.assert_array_equal(results["valid_pixels"][:], [number for _, number in expected])
        np.testing.assert_array_equal(results["invalid_pixels"][:], 1)


def frames(folder):
    """Frames with negative, saturated and missing pixels, and one whose every pixel is saturated."""
    counts = np.random.default_rng(5).poisson(20, (4, 32, 48)).astype("<i4")
    counts[1, 2, :7] = -5
    counts[2, 3, :9] = 2**31 - 1
    counts[3] = 1000
    with h5py.File(f"{folder}/frames.h5", "w") as file:
        file["data"] = counts


def odd(master):
    """What `frames` made: negative pixels count, saturated ones do not, and the frame without any valid pixel says so."""
    with h5py.File(master) as file:
        results = file["entry/results"]
        counts = file["entry/data/data"][:].astype(float)
        valid = counts < 1000
        scalars = results["scalars"]
        np.testing.assert_array_equal(scalars["sum"][:], np.where(valid, counts, 0).sum((1, 2)))
        np.testing.assert_array_equal(scalars["valid_pixels"][:], valid.sum((1, 2)))
        np.testing.assert_array_equal(scalars["saturated_pixels"][:], (~valid).sum((1, 2)))
        finite(results)
    print("ok")


ABSURD = [3, 700, 1200, 1300]


def absurd(folder):
    """Counts, a flat and a dark that hold a few numbers which are finite and cannot be."""
    rng = np.random.default_rng(6)
    counts = rng.poisson(200, (3, 32, 48)).astype("<u2")
    with h5py.File(f"{folder}/counts.h5", "w") as file:
        file["data"] = counts
    flat = rng.uniform(0.8, 1.2, 32 * 48).astype("<f4")
    dark = rng.uniform(1, 5, 32 * 48).astype("<f4")
    flat[ABSURD[:2]], dark[ABSURD[2:]] = [1e20, 1e-12], [1e14, -1e14]
    np.save(f"{folder}/flat.npy", flat.reshape(32, 48))
    np.save(f"{folder}/dark.npy", dark.reshape(32, 48))


def beside(folder, master):
    """The curves are those of pyFAI, to which the absurd pixels are masked by hand."""
    import pyFAI

    bad = np.zeros(32 * 48, bool)
    bad[ABSURD] = True
    bad = bad.reshape(32, 48)
    flat, dark = [np.where(bad, 1, np.load(f"{folder}/{name}.npy")) for name in ("flat", "dark")]
    with h5py.File(f"{folder}/counts.h5") as file, h5py.File(master) as stored:
        mask = stored["entry/instrument/detector/pixel_mask"][:]
        np.testing.assert_array_equal(mask & 0xFFFF != 0, bad)
        found = stored["entry/results/intensity/intensity"][:]
        errors = stored["entry/results/intensity/intensity_errors"][:]
        worst = 0
        for frame, intensity, error in zip(file["data"][:], found, errors):
            result = pyFAI.load(f"{folder}/d.poni").integrate1d_ng(
                frame.astype("f4"), 20, unit="r_mm", method=("no", "csr", "cython"), mask=bad, flat=flat, dark=dark,
                error_model="poisson")
            there = result.count > 0
            assert there.all()
            worst = max(worst, np.abs(intensity / result.intensity - 1).max(), np.abs(error / result.sigma - 1).max())
    print(json.dumps({"worst relative difference": float(worst)}))
    assert worst <= 1e-5, worst


def wide(compact, shared):
    """Sharing large pixels changes no sum, and nothing of what is stored as it was measured."""
    with h5py.File(compact) as one, h5py.File(shared) as other:
        for path in ["entry/data/data", "entry/instrument/detector/pixel_mask"]:
            np.testing.assert_array_equal(one[path][:], other[path][:])
        sums = [file["entry/results/scalars/sum"][:] for file in (one, other)]
        np.testing.assert_allclose(*sums, rtol=1e-7)
        valid = [file["entry/results/scalars/valid_pixels"][:] for file in (one, other)]
        # 2 rows and 6 columns are twice as large.
        assert ((valid[1] - valid[0] > 5000) & (valid[1] - valid[0] <= 514 * 1030 - 512 * 1024)).all(), valid
        finite(other["entry/results"])


WINDOW, WITHIN, GAIN, DRIFT_ADU = 40, 0.25, 41.0, 100.0


def drifting(folder):
    """Words of a detector whose pedestals move by some 100 ADU, a fifth of a photon, while it measures."""
    rng = np.random.default_rng(6)
    shape, frames = (40, 72), 400
    pedestals = np.stack([rng.uniform(low, high, shape) for low, high in [(2000, 3000), (14800, 15200), (15300, 15700)]])
    pedestals = pedestals.astype("<f4")
    pace = rng.uniform(0.7, 1.3, shape)
    truth = rng.poisson(0.02, (frames, *shape)) + np.where(rng.random((frames, *shape)) < 0.02, rng.random((frames, *shape)), 0)
    moved = DRIFT_ADU * pace * np.arange(frames)[:, None, None] / frames
    words = np.rint(pedestals[0] + moved + rng.normal(0, 12, truth.shape) + truth * GAIN * ENERGY_KEV).astype("<u2")
    switched = rng.random(words.shape)
    words[switched < 0.01] = 0x4000 | 14500
    words[switched < 0.003] = 0xC000 | 15000
    words[7, 3, :5] = 0xFFFF
    pedestals[0, 5, :6] = np.nan
    np.save(f"{folder}/pedestals.npy", pedestals)
    np.savez(f"{folder}/truth.npz", truth=truth, quiet=switched >= 0.01)
    with h5py.File(f"{folder}/drifting.h5", "w") as file:
        file["data"] = words


def followed(folder, master):
    """A run whose pedestals followed its frames, against the same in float64, frame by frame."""
    pedestals = np.load(f"{folder}/pedestals.npy").astype(float)
    with h5py.File(f"{folder}/drifting.h5") as file:
        words = file["data"][:]
    gains = np.stack([np.full(words.shape[1:], gain) for gain in (GAIN, -1.439, -0.1145)])
    known = np.isfinite(pedestals[0])
    drift = np.zeros(words.shape[1:])
    with h5py.File(master) as file:
        results = file["entry/results"]
        scalars = {name: results[f"scalars/{name}"][:] for name in ("sum", "valid_pixels", "pedestal_pixels")}
        np.testing.assert_array_equal(file["entry/data/data"][:], words)
        for number, frame in enumerate(words):
            value = photons(frame, np.stack([pedestals[0] + drift, *pedestals[1:]]), gains)
            good = known & np.isfinite(value)
            np.testing.assert_allclose(scalars["sum"][number], value[good].sum(), rtol=1e-5, err_msg=f"sum {number}")
            assert scalars["valid_pixels"][number] == good.sum(), number
            quiet = good & (frame >> 14 == 0) & (np.abs(value) <= WITHIN)
            # Where the last bit decides whether a word is within the limit, single precision may say otherwise.
            assert abs(scalars["pedestal_pixels"][number] - quiet.sum()) <= 1, number
            drift[quiet] += (frame[quiet] - pedestals[0][quiet] - drift[quiet]) / WINDOW
        found = results["images/pedestal_drift/pedestal_drift"][:]
    apart = np.abs(found - drift)
    assert (apart > 2e-3).sum() <= 1, f"{(apart > 2e-3).sum()} pixels, {apart.max()} ADU"
    print(json.dumps({"worst_adu": float(np.median(apart)), "mean_adu": float(drift[known].mean()),
                      "largest_adu": float(drift.max()), "words": float(scalars["pedestal_pixels"].sum()),
                      "drifted": int((np.abs(drift[known]) / (GAIN * ENERGY_KEV) > 0.1).sum())}))


def apart(folder, follows, still):
    """What following is good for: how far the last hundred frames are from the photons that were there."""
    with np.load(f"{folder}/truth.npz") as file:
        truth, quiet = file["truth"], file["quiet"]
    known = np.isfinite(np.load(f"{folder}/pedestals.npy")[0])
    errors = []
    for master in (follows, still):
        with h5py.File(master) as file:
            sums, valid = (file[f"entry/results/scalars/{name}"][:] for name in ("sum", "valid_pixels"))
        # Switched pixels hold the same number in both, whatever it is.
        expected = (truth * (quiet & known)).sum((1, 2))
        errors.append(((sums - expected) / valid)[-100:].mean())
    print(json.dumps({"followed": errors[0], "still": errors[1], "less by": errors[1] - errors[0]}))
    assert errors[1] - errors[0] > 0.1, errors


if __name__ == "__main__":
    {"make": make, "check": check, "curve": curve, "rates": rates, "rate": rate, "frames": frames, "odd": odd,
     "absurd": absurd, "beside": beside, "wide": wide,
     "drifting": drifting, "followed": followed, "apart": apart}[sys.argv[1]](*sys.argv[2:])
