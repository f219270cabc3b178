"""Answers of ASTRA, algotom, SciPy and scikit-image for tests of reconstruction. Writes .npy files into a folder.

reconstruction_reference.py FOLDER DATA
"""

import sys
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")
import astra  # noqa: E402
import scipy.fft  # noqa: E402
from skimage.metrics import structural_similarity  # noqa: E402

folder = Path(sys.argv[1])

# Shepp and Logan's head, unit contrast: value, half axes, middle, turned by degrees.
ELLIPSES = [(1, .69, .92, 0, 0, 0), (-.8, .6624, .874, 0, -.0184, 0), (-.2, .11, .31, .22, 0, -18),
            (-.2, .16, .41, -.22, 0, 18), (.1, .21, .25, 0, .35, 0), (.1, .046, .046, 0, .1, 0),
            (.1, .046, .046, 0, -.1, 0), (.1, .046, .023, -.08, -.605, 0), (.1, .023, .023, 0, -.606, 0),
            (.1, .023, .046, .06, -.605, 0)]


def save(name, values):
    np.save(folder / f"{name}.npy", np.ascontiguousarray(values, dtype=np.float32))


def phantom(size, samples=8):
    """Each pixel the mean of points; x along rows, y down them, lengths in 0.9 half widths."""
    place = ((np.arange(size * samples) + 0.5) / samples - size / 2) / (0.45 * size)
    image = np.zeros((size, size))
    # Row by row: all points at once take gigabytes.
    for row, heights in enumerate(place.reshape(size, samples)):
        x, y = np.meshgrid(place, heights)
        points = np.zeros_like(x)
        for value, a, b, x0, y0, turned in ELLIPSES:
            c, s = np.cos(np.deg2rad(turned)), np.sin(np.deg2rad(turned))
            u, v = (x - x0) * c + (y - y0) * s, (y - y0) * c - (x - x0) * s
            points += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
        image[row] = points.reshape(samples, size, samples).mean((0, 2))
    return image


def sinogram(size, theta, samples=4):
    """Exact line integrals in pixels, each the mean across its column."""
    t = (((np.arange(size * samples) + 0.5) / samples - size / 2) / (0.45 * size))[None, :]
    angle = theta[:, None]
    lines = np.zeros((len(theta), size * samples))
    for value, a, b, x0, y0, turned in ELLIPSES:
        own = angle - np.deg2rad(turned)
        s2 = (a * np.cos(own)) ** 2 + (b * np.sin(own)) ** 2
        away = t - x0 * np.cos(angle) - y0 * np.sin(angle)
        lines += 2 * value * a * b * np.sqrt(np.maximum(s2 - away ** 2, 0)) / s2
    return lines.reshape(len(theta), size, samples).mean(2) * 0.45 * size


def run_astra(lines, theta, kind, projector, iterations=1):
    size = lines.shape[1]
    volume = astra.create_vol_geom(size, size)
    geometry = astra.create_proj_geom("parallel", 1.0, size, -theta)  # its y grows upwards
    projector = astra.create_projector(projector, geometry, volume)
    data = astra.data2d.create("-sino", geometry, np.ascontiguousarray(lines, np.float32))
    out = astra.data2d.create("-vol", volume)
    config = astra.astra_dict(kind)
    config.update(ProjectorId=projector, ProjectionDataId=data, ReconstructionDataId=out)
    algorithm = astra.algorithm.create(config)
    astra.algorithm.run(algorithm, iterations)
    return astra.data2d.get(out)


size = 512
theta = np.arange(402) * np.pi / 402
lines, truth = sinogram(size, theta), phantom(size, 24)
fbp = run_astra(lines, theta, "FBP", "strip")
save("head_lines", lines)
save("head_truth", truth)
save("head_astra", fbp)
place = np.arange(size) - (size - 1) / 2
circle = np.hypot(*np.meshgrid(place, place)) <= (size - 1) / 2 - 3
_, similarity = structural_similarity(truth, fbp.astype(float), data_range=np.ptp(truth), full=True)
save("head_astra_ssim", [similarity[circle].mean()])

# Rings: columns whose gain is off by two per cent, and some that are worse; the same cleaned by algotom.
from algotom.prep import removal  # noqa: E402

random = np.random.default_rng(7)
striped = lines * (1 + 0.02 * random.normal(size=size))
for column, gain in ((140, 1.25), (200, 0.75), (260, 1.3), (330, 0.7), (331, 0.7), (400, 1.4)):
    striped[:, column] *= gain
save("rings", striped)
for name, method in {
    "sorting": lambda s: removal.remove_stripe_based_sorting(s, 21),
    "filtering": lambda s: removal.remove_stripe_based_filtering(s, 3, 21),
    "all": lambda s: removal.remove_all_stripe(s, 5.0, 21, 11),
    "wavelet_fourier": lambda s: removal.remove_stripe_based_wavelet_fft(s, 5, 1, "db9"),
}.items():
    save(f"rings_{name}", method(striped.astype(np.float32)))

# As few projections as `auto` takes the Fourier method for.
save("edge_lines", sinogram(640, np.arange(172) * np.pi / 172))
save("edge_truth", phantom(640))

size = 128
theta = np.arange(60) * np.pi / 60
lines = sinogram(size, theta)
save("few_lines", lines)
save("few_truth", phantom(size))
save("few_sirt", run_astra(lines, theta, "SIRT", "linear", 100))
save("few_cgls", run_astra(lines, theta, "CGLS", "linear", 5))
save("few_cgls_20", run_astra(lines, theta, "CGLS", "linear", 20))

# Paganin's filter in double precision: the formula, with padding as nabu's.
random = np.random.default_rng(2)
image = random.uniform(0.3, 1, (50, 71))
for mode in ("edge", "symmetric"):
    high, wide = 100, 144  # twice, up to a product of 2, 3, 5 and 7
    pads = [((n - s) // 2, n - s - (n - s) // 2) for n, s in ((high, 50), (wide, 71))]
    padded = np.pad(image, pads, mode=mode)
    fy, fx = np.fft.fftfreq(high, 1.3e-6)[:, None], np.fft.rfftfreq(wide, 1.3e-6)[None, :]
    wavelength = 1.239841984e-9 / 23.5
    response = 1 / (1 + np.pi * wavelength * 0.12 * 250.0 * (fy ** 2 + fx ** 2))
    filtered = scipy.fft.irfft2(scipy.fft.rfft2(padded) * response, (high, wide))
    save(f"paganin_{mode}", filtered[pads[0][0] : pads[0][0] + 50, pads[1][0] : pads[1][0] + 71])
save("paganin", image)

# A vertical slice through the middle, filtered without a window, by an independent program.
from algotom.rec import vertrec  # noqa: E402

angles, rows, columns = 200, 24, 161
theta = np.arange(angles) * np.pi / angles
half = columns / 2
z, u = np.mgrid[:rows, :columns]
projections = np.zeros((angles, rows, columns))
for n, angle in enumerate(theta):
    for x, y, level, r, value in [(0, 0, 12, 0.8, 1), (0.3, 0.2, 8, 0.3, -0.4), (-0.35, 0.1, 15, 0.2, 0.8)]:
        t = (u - 80) / half - x * np.cos(angle) - y * np.sin(angle)
        away = t ** 2 + ((z - level) / half) ** 2
        projections[n] += value * np.maximum(r * r - away, 0) ** 1.5
save("ball_lines", projections)
vertical = vertrec.vertical_reconstruction(
    projections, 80, 80, alpha=0.0, angles=theta, ramp_filter="before", filter_name=None, apply_log=False,
    gpu=False, ncore=1, show_progress=False)
save("ball_vertical", vertical)
