"""Answers of algotom for tests of tomography: stripes, zingers, rotation axes. Writes .npy files into a folder.

tomography_reference.py FOLDER DATA
"""

import sys
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")
from algotom.prep import calculation, removal  # noqa: E402

folder, data = Path(sys.argv[1]), Path(sys.argv[2])


def save(name, values):
    np.save(folder / f"{name}.npy", np.ascontiguousarray(values, dtype=np.float32))


def sinogram(angles, columns, seed):
    """Discs with noise, uneven columns, and stripes of every kind."""
    random = np.random.default_rng(seed)
    theta = np.linspace(0, np.pi, angles)[:, None]
    u = np.linspace(-1, 1, columns)[None, :]
    values = np.zeros((angles, columns))
    for x, y, r, value in [(0, 0, 0.8, 1), (0.3, 0.2, 0.2, 0.7), (-0.4, 0.3, 0.15, -0.4), (0.1, -0.5, 0.1, 1.2)]:
        t = u - x * np.cos(theta) - y * np.sin(theta)
        values += value * np.sqrt(np.maximum(r * r - t * t, 0))
    values += 0.3 + 0.01 * random.normal(size=values.shape)
    values *= 1 + 0.01 * random.normal(size=(1, columns))
    values[:, columns // 4] *= 1.15
    values[:, columns // 2 : columns // 2 + 6] += 0.2
    values[:, 3 * columns // 4] = 0.8 + 0.4 * random.normal(size=angles)
    values = values.astype(np.float32)
    # No two equal values in a column: algotom sorts them in an order of its own.
    while True:
        ordered = np.argsort(values, axis=0, kind="stable")
        again = np.diff(np.take_along_axis(values, ordered, 0), axis=0) == 0
        if not again.any():
            return values
        rows, places = np.nonzero(again)
        values[ordered[rows, places], places] *= np.float32(1 + 1e-6)


METHODS = {
    "sorting": lambda s: removal.remove_stripe_based_sorting(s, 21),
    "sorting_square": lambda s: removal.remove_stripe_based_sorting(s, 5, dim=2),
    "sorting_even": lambda s: removal.remove_stripe_based_sorting(s, 12),
    "filtering": lambda s: removal.remove_stripe_based_filtering(s, 3, 21),
    "filtering_unsorted": lambda s: removal.remove_stripe_based_filtering(s, 7, 11, sort=False),
    "fitting": lambda s: removal.remove_stripe_based_fitting(s, 2, 10),
    "fitting_sorted": lambda s: removal.remove_stripe_based_fitting(s, 3, 6, sort=True),
    "large": lambda s: removal.remove_large_stripe(s, 3.0, 51),
    "large_plain": lambda s: removal.remove_large_stripe(s, 2.0, 31, 0.2, norm=False),
    "dead": lambda s: removal.remove_dead_stripe(s, 3.0, 51),
    "all": lambda s: removal.remove_all_stripe(s, 3.0, 51, 21),
    "wavelet_fourier": lambda s: removal.remove_stripe_based_wavelet_fft(s, 5, 1, "db9"),
    "wavelet_fourier_2": lambda s: removal.remove_stripe_based_wavelet_fft(s, 2, 3, "db5"),
}
for angles, columns in [(180, 200), (181, 201), (150, 331)]:
    given = sinogram(angles, columns, angles)
    save(f"stripes_{angles}_{columns}", given)
    for name, method in METHODS.items():
        save(f"stripes_{angles}_{columns}_{name}", method(given.copy()))

random = np.random.default_rng(1)
image = (0.7 + 0.01 * random.normal(size=(90, 110))).astype(np.float32)
image[random.integers(0, 90, 60), random.integers(0, 110, 60)] *= 1.4
save("zingers", image)
save("zingers_2", removal.remove_zinger(image, 0.08, 2))
save("zingers_1", removal.remove_zinger(image, 0.1, 1))

tooth = data / "ct-tooth" / "tooth.h5"
if tooth.exists():
    import h5py

    with h5py.File(tooth) as file:
        raw, white, dark = (file[f"exchange/{key}"][()] for key in ("data", "data_white", "data_dark"))
        theta = file["exchange/theta"][()]
    flat, black = white.mean(0), dark.mean(0)
    lines = -np.log(np.clip((raw - black) / (flat - black), 1e-6, None))
    save("tooth", lines)
    save("tooth_theta", theta)
    found = [calculation.find_center_vo(lines[:, 0], ncore=1), calculation.find_center_vo(lines[:, 1], ncore=1)]
    save("tooth_axis", found)

# An axis near the edge, a whole turn.
angles = np.linspace(0, 2 * np.pi, 361)[:, None]
u = np.arange(300)[None, :]
values = 0.01 * random.normal(size=(361, 300))
for x, y, r, value in [(20, 90, 30, 1), (100, -120, 24, 0.7), (-140, 40, 35, -0.4), (10, -15, 60, 1.2)]:
    t = u - 37.25 - x * np.cos(angles) - y * np.sin(angles)
    values += value * np.sqrt(np.maximum(r * r - t * t, 0)) / 30
save("whole_turn", values)
cor, overlap, side, _ = calculation.find_center_360(values.astype(np.float32), 40, side=0, ncore=1)
save("whole_turn_axis", [cor, overlap, side])
