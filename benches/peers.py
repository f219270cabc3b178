"""Fluxline beside the programs and limits that it is compared with, in one run, in turn.

    make bench                 # or: .venv/bin/python benches/peers.py [--rounds N] [--only NAME,…] [--large]

Every round measures Fluxline and each peer once, one after the other, so that a machine whose speed drifts shifts
both; the ratio is taken round by round and its median is quoted. Peers are given what makes them fast: arrays of the
type that they want, plans and buffers that are kept, as many threads as they use by themselves. `astra (1 core)` runs
on one core because its CPU algorithms do; Fluxline uses what the OpenCL device has.
"""

import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from live import live, shorten
from tomography import tomography

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BENCHES = os.path.join(ROOT, "target/release/fluxline-benches")
FLUXLINE = os.environ.get("FLUXLINE_BINARY", os.path.join(ROOT, "target/release/fluxline"))
EIGER_4M, EIGER_1M = (2167, 2070), (1065, 1030)


class Ours:
    """The other side of the pipe: a line asks, a line answers in seconds."""

    def __init__(self):
        self.process = subprocess.Popen([BENCHES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"fluxline-benches ended at `{' '.join(map(str, words))}`")
        return float(answer)


def timed(call, clock=time.perf_counter):
    def measure():
        start = clock()
        call()
        return clock() - start
    return measure


def compare(title, ours, peers, rounds, warm=True):
    """One row per peer: medians of both, median of the ratios peer / ours."""
    for measure in [ours, *peers.values()] if warm else []:  # plans are made, pages touched
        measure()
    own, theirs = [], {name: [] for name in peers}
    for _ in range(rounds):
        own.append(ours())
        for name, measure in peers.items():
            theirs[name].append(measure())
    for name, times in theirs.items():
        ratios = [peer / our for peer, our in zip(times, own)]
        print(f"| {title} | {statistics.median(own) * 1e3:.3g} ms | {name} | {statistics.median(times) * 1e3:.4g} ms "
              f"| **{statistics.median(ratios):.3g}** ({min(ratios):.3g} to {max(ratios):.3g}) |", flush=True)


def azimuthal(ours, rounds, _):
    import pyFAI
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator
    rows, columns = EIGER_4M
    row, column = np.mgrid[:rows, :columns]
    mask = ((row % 551 >= 514) | (column % 1040 >= 1030)).astype(np.int8)
    frame = np.random.default_rng(1).poisson(2.0, EIGER_4M).astype(np.uint16)
    frame[mask != 0] = 65535
    ai = AzimuthalIntegrator(0.15, rows * 0.49 * 75e-6, columns * 0.52 * 75e-6, wavelength=1e-10,
                             detector=Detector(75e-6, 75e-6, max_shape=EIGER_4M))

    def integrate(implementation, error_model, splitting="no", clock=time.perf_counter):
        return timed(lambda: ai.integrate1d_ng(frame, 2000, mask=mask, unit="q_nm^-1", polarization_factor=0.9,
                                               correctSolidAngle=True, error_model=error_model,
                                               method=(splitting, "csr", implementation)), clock)
    # By the processor's time besides, which a busy machine tells, too. What is beside `floor` is a share: of what reading the
    # pixels costs at least.
    clocks = (("", time.perf_counter, ()), (", processor time", time.process_time, ("cpu",)))

    def floor(cpu):
        return {"the same bytes read once from memory by every core": lambda: ours("floor", rows, columns, *cpu)}
    for errors, words in ((None, ()), ("poisson", ("poisson",))):
        for batch in (16, 1):
            for what, clock, cpu in clocks:
                peers = {**floor(cpu), f"pyFAI {pyFAI.version} CSR Cython": integrate("cython", errors, clock=clock)}
                if not cpu:
                    peers[f"pyFAI {pyFAI.version} CSR OpenCL on PoCL"] = integrate("opencl", errors)
                compare(f"azimuthal, Eiger 4M u16, 2000 bins, errors {errors}, {batch} at once{what}",
                        lambda: ours("azimuthal", rows, columns, batch, *words, *cpu), peers, rounds)
        for splitting in ("bbox", "full"):
            for batch in (16, 1):
                for what, clock, cpu in clocks:
                    compare(f"the same, {splitting} splitting, errors {errors}, {batch} at once{what}",
                            lambda: ours("azimuthal", rows, columns, batch, *words, splitting, *cpu),
                            {**floor(cpu), f"pyFAI {pyFAI.version} CSR Cython": integrate("cython", errors, splitting, clock)}, rounds)


DIALS = """
import sys, time
import numpy as np
from dials.algorithms.image.threshold import DispersionExtendedThreshold, DispersionThreshold
from dials.array_family import flex
frame = np.fromfile(sys.argv[1], "<i4").reshape(int(sys.argv[2]), int(sys.argv[3]))
image, mask, strong = flex.double(frame.astype(float)), flex.bool(frame >= 0), flex.bool(flex.grid(frame.shape))
finders = {n: c(frame.shape, (3, 3), 6.0, 3.0, 0.0, 2)
           for n, c in (("dispersion", DispersionThreshold), ("extended", DispersionExtendedThreshold))}
for line in sys.stdin:
    method, clock = line.split()
    clock = getattr(time, clock)
    start = clock()
    finders[method](image, mask, strong)
    print(clock() - start, flush=True)
"""


def spots(_, rounds, __):
    """One core each: DIALS's C++ and Fluxline on a device of one thread. `make dials` unpacks DIALS."""
    import bz2
    import gzip

    import fabio
    root = os.environ.get("FLUXLINE_DIALS_ROOT", os.path.join(ROOT, ".toolchain/dials"))
    data = os.environ.get("FLUXLINE_DATA", os.path.join(ROOT, "../shared/data"))
    if not os.path.isdir(root) or not os.path.isdir(data):
        print("SKIPPED spots: `make dials`, or set FLUXLINE_DIALS_ROOT to where DIALS's packages are unpacked; and FLUXLINE_DATA")
        return
    libraries = root + "/usr/lib/x86_64-linux-gnu"
    dials = dict(os.environ, PYTHONPATH=root + "/usr/lib/python3/dist-packages",
                 LIBTBX_BUILD=root + "/usr/lib/cctbx/python3.11",
                 LD_LIBRARY_PATH=":".join([libraries, libraries + "/blas", libraries + "/lapack"]))
    os.environ["POCL_MAX_PTHREAD_COUNT"] = "1"
    ours = Ours()
    frames = {"Pilatus 6M": "mx-thaumatin-grid/thau_3_2_0001.cbf.bz2",
              "Eiger 16M": "mx-eiger-therm/dlsnxs2cbf_therm_0001.cbf.gz"}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in frames.items():
            plain, raw = os.path.join(folder, "frame.cbf"), os.path.join(folder, name.replace(" ", "_"))
            with (bz2 if path.endswith("bz2") else gzip).open(os.path.join(data, path)) as file, open(plain, "wb") as out:
                out.write(file.read())
            frame = fabio.open(plain).data.astype("<i4")
            frame.tofile(raw)
            size = list(map(str, frame.shape))
            peer = subprocess.Popen(["/usr/bin/python3.11", "-c", DIALS, raw, *size], env=dials,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

            def ask(method, clock):
                peer.stdin.write(f"{method} {clock}\n")
                peer.stdin.flush()
                return float(peer.stdout.readline())
            for method in ("dispersion", "extended"):
                for what, clock, cpu in (("", "perf_counter", ()), (", processor time", "process_time", ("cpu",))):
                    compare(f"spots, {name} i32, {method}, one core{what}", lambda: ours("spots", raw, *size, method, 4, *cpu),
                            {"DIALS 3.12 threshold alone": lambda: ask(method, clock)}, rounds)
            peer.stdin.close()
            peer.wait()


def volumes(ours, rounds, large, short=False):
    """Slabs of a whole volume: where the Fourier method overtakes back-projection, beside algotom's and ASTRA's, per slice."""
    from importlib.metadata import version
    import algotom.rec.reconstruction as algotom_rec
    import astra
    cores = len(os.sched_getaffinity(0))
    sizes = ((512, (90, 180, 360, 720)), (1024, (180, 360, 720)), *(((2048, (750, 1500)),) if large else ()))
    for columns, counts in ((512, (180,)),) if short else sizes:
        for angles in counts:
            radians = np.arange(angles) * np.pi / angles
            sinogram = np.tile(np.arange(columns, dtype=np.float32) % 97, (angles, 1))
            grid = astra.create_vol_geom(columns, columns)
            geometry = astra.create_proj_geom("parallel", 1.0, columns, radians)
            config = astra.astra_dict("FBP")
            config.update(ProjectorId=astra.create_projector("linear", geometry, grid), FilterType="ram-lak",
                          ProjectionDataId=astra.data2d.create("-sino", geometry, sinogram),
                          ReconstructionDataId=astra.data2d.create("-vol", grid))
            fbp = astra.algorithm.create(config)
            peers = {
                "back-projection": lambda: ours("volume", columns, angles),
                "gridrec": lambda: ours("gridrec", columns, angles),
                f"algotom {version('algotom')} DFI, padded": timed(lambda: algotom_rec.dfi_reconstruction(
                    sinogram, (columns - 1) / 2, angles=radians, ratio=None, filter_name=None, apply_log=False)),
                f"algotom {version('algotom')} FBP (Numba)": timed(lambda: algotom_rec.fbp_reconstruction(
                    sinogram, (columns - 1) / 2, angles=radians, ratio=None, apply_log=False, gpu=False)),
                f"ASTRA {astra.__version__} FBP linear (1 core)": timed(lambda: astra.algorithm.run(fbp)),
            }
            rate = columns * columns * angles / 1e9 / cores
            ours("volume", columns, angles)
            seconds = statistics.median(ours("volume", columns, angles) for _ in range(rounds))
            compare(f"volume by `auto`, slice of {columns}² from {angles} angles; back-projection {rate / seconds:.2g} GUPS per core",
                    lambda: ours("auto", columns, angles), peers, min(3, rounds) if columns > 1500 else rounds)
            astra.clear()
    columns, angles = 256, 180
    radians = np.arange(angles) * np.pi / angles
    volume = astra.create_vol_geom(columns, columns)
    geometry = astra.create_proj_geom("parallel", 1.0, columns, radians)
    data = astra.data2d.create("-sino", geometry, np.ones((angles, columns), np.float32))
    for kind in ("sirt", "cgls"):
        config = astra.astra_dict(kind.upper())
        config.update(ProjectorId=astra.create_projector("linear", geometry, volume), ProjectionDataId=data,
                      ReconstructionDataId=astra.data2d.create("-vol", volume))
        algorithm = astra.algorithm.create(config)
        compare(f"{kind.upper()}, 10 iterations, slice of {columns}² from {angles} angles (slab of 16)",
                lambda: ours(kind, columns, angles),
                {f"ASTRA {astra.__version__} linear (1 core)": timed(lambda: astra.algorithm.run(algorithm, 10))}, rounds)


def backprojection(ours, rounds, large):
    from importlib.metadata import version
    import algotom.rec.reconstruction as algotom_rec
    import astra
    from silx.opencl.backprojection import Backprojection
    sizes = [(1024, 720)] + ([(2048, 1500)] if large else [])
    for columns, angles in sizes:
        sinogram = np.random.default_rng(2).random((angles, columns), dtype=np.float32)
        radians = np.arange(angles) * np.pi / angles

        volume = astra.create_vol_geom(columns, columns)
        geometry = astra.create_proj_geom("parallel", 1.0, columns, radians)
        data = astra.data2d.create("-sino", geometry, sinogram)
        target = astra.data2d.create("-vol", volume)

        def astra_fbp(kind):
            config = astra.astra_dict("FBP")
            config.update(ProjectorId=astra.create_projector(kind, geometry, volume), ProjectionDataId=data,
                          ReconstructionDataId=target, FilterType="ram-lak")
            algorithm = astra.algorithm.create(config)
            return timed(lambda: astra.algorithm.run(algorithm))

        silx = Backprojection((angles, columns), angles=radians, devicetype="all")
        peers = {
            f"ASTRA {astra.__version__} FBP linear (1 core)": astra_fbp("linear"),
            f"ASTRA {astra.__version__} FBP strip (1 core)": astra_fbp("strip"),
            f"algotom {version('algotom')} FBP (Numba)": timed(
                lambda: algotom_rec.fbp_reconstruction(sinogram, (columns - 1) / 2, angles=radians, ratio=None,
                                                       apply_log=False, gpu=False)),
            f"silx {version('silx')} FBP OpenCL on PoCL": timed(lambda: silx.filtered_backprojection(sinogram)),
        }
        compare(f"FBP, slice of {columns}² from {angles} angles (slab of 16)", lambda: ours("slab", columns, angles),
                peers, min(3, rounds) if columns > 1500 else rounds)


def fused(ours, rounds, _):
    """Compressed frames to statistics and curve: decoded into memory and then reduced, and both at once."""
    threads = os.cpu_count()
    for batch in (16, 1):
        for gaps, unmasked in (("", ()), (", gaps that nobody masked", ("unmasked",))):
            for what, cpu in (("", ()), (", processor time", ("cpu",))):
                compare(f"compressed Eiger 4M u16 to statistics and curve with errors, 2000 bins{gaps}, {batch} at once{what}",
                        lambda: ours("fused", *EIGER_4M, batch, threads, *unmasked, *cpu),
                        {"decoding, then the kernels": lambda: ours("decoded", *EIGER_4M, batch, threads, *unmasked, *cpu)}, 3 * rounds)


def codec(ours, rounds, _):
    """One core each: a call of every program codes one Eiger 4M frame."""
    from threadpoolctl import threadpool_limits
    import bitshuffle
    import dectris.compression
    import h5py
    import hdf5plugin
    from importlib.metadata import version
    random = np.random.default_rng(4)
    row, column = np.mgrid[:EIGER_4M[0], :EIGER_4M[1]]
    gaps = (row % 551 >= 514) | (column % 1040 >= 1030)
    with threadpool_limits(1, "openmp"), tempfile.TemporaryDirectory(prefix="bench-codec-") as folder:
        for dtype in (np.uint8, np.uint16, np.uint32):
            frame = random.poisson(0.3, EIGER_4M).astype(dtype)
            frame[gaps] = np.iinfo(dtype).max
            size = frame.dtype.itemsize
            path = os.path.join(folder, frame.dtype.name)
            frame.tofile(path)
            chunk = bitshuffle.compress_lz4(frame).tobytes()
            head = len(frame.tobytes()).to_bytes(8, "big") + (8192).to_bytes(4, "big")
            title = f"one core, Eiger 4M {frame.dtype.name}"
            compress = {f"bitshuffle {bitshuffle.__version__} ({simd()})": timed(lambda: bitshuffle.compress_lz4(frame))}
            filtered = os.path.join(folder, "filtered.h5")
            with h5py.File(filtered, "w", driver="core", backing_store=False) as file:
                data = file.create_dataset("d", frame.shape, frame.dtype, chunks=frame.shape,
                                           compression=hdf5plugin.Bitshuffle(cname="lz4"))

                def through_hdf5():
                    data[...] = frame
                    file.flush()  # the filter runs when the chunk leaves the cache
                compress[f"hdf5plugin {version('hdf5plugin')} in memory"] = timed(through_hdf5)
                compare(f"compress, {title}", lambda: ours("compress", path, size), compress, 5 * rounds)
            coded = np.frombuffer(chunk, np.uint8)
            compare(f"decompress, {title}", lambda: ours("decompress", path, size), {
                f"bitshuffle {bitshuffle.__version__} ({simd()})": timed(
                    lambda: bitshuffle.decompress_lz4(coded, frame.shape, frame.dtype)),
                f"dectris-compression {version('dectris-compression')}": timed(
                    lambda: dectris.compression.decompress(head + chunk, "bslz4", elem_size=size)),
            }, 5 * rounds)


def simd():
    import bitshuffle
    names = ("AVX512", "AVX2", "NEON", "SSE2")
    return next((name for name in names if getattr(bitshuffle, f"using_{name}")()), "no SIMD")


def stored(ours, folder, size, cpu, rounds, warm=True):
    """A stored run beside the same bytes from the same memory by O_DIRECT, one file, no index, no hash: written one after the other
    as the file grows, and by four threads into a file that was made as long before, the best way that was found for this disk."""
    rows, columns, frames = size
    words = (folder, rows, columns, frames, 25, *cpu)
    what = ", processor time for each GB" if cpu else ""
    compare(f"a stored run of {frames} bitshuffle-LZ4 frames of {rows}×{columns}{what}", lambda: ours("write", *words), {
        "the same bytes by O_DIRECT + fsync": lambda: ours("pwrite", *words),
        "by four threads, room made before": lambda: ours("pwrite4", *words)}, rounds, warm)


def writer(ours, rounds, _):
    """The writer's time is that of a whole run: created, written, synced several times a second, indexed, hashed, published.
    Reading is that of all frames in their order through the read path, as they are stored."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix="bench-store-") as folder:
        for size in ((*EIGER_4M, 400), (*EIGER_1M, 1000), (256, 256, 5000)):
            rows, columns, frames = size
            for cpu, what in (((), ""), (("cpu",), ", processor time for each GB")):
                stored(ours, folder, size, cpu, rounds)
                words = (folder, *size, 25, *cpu)
                compare(f"reading {frames} bitshuffle-LZ4 frames of {rows}×{columns}{what}", lambda: ours("read", *words), {
                    "the same files by O_DIRECT, 4 MiB each": lambda: ours("pread", *words),
                    "by four threads": lambda: ours("pread4", *words),
                    "writing it": lambda: ours("write", *words)}, rounds)


def sustained(ours, rounds, _):
    """The same over gigabytes, so that what a run costs once weighs little; and frames that come as pixels and that the writer
    compresses, beside the codec alone on every core."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix="bench-store-") as folder:
        for size in ((*EIGER_4M, 2500), (*EIGER_1M, 10000), (256, 256, 100000)):
            stored(ours, folder, size, (), rounds, warm=False)
        for rows, columns, frames in ((*EIGER_4M, 1200), (*EIGER_1M, 5000)):
            words = (folder, rows, columns, frames, 25)
            compare(f"a stored run of {frames} frames of {rows}×{columns} u16, compressed to a quarter", lambda: ours("packed", *words), {
                "the codec alone on every core": lambda: ours("codec", *words)}, rounds, warm=False)


CONFIG = """
[ring]
slots = 64
allow_transparent = true
[[source]]
kind = "replay"
path = "{path}"
dataset = "/data"
rate_hz = {rate}
[store]
path = "{store}"
[recipe.bench]
technique = "diffraction"
operations = ["statistics", "azimuthal"]
[recipe.bench.azimuthal]
bins = 2000
poni = "{poni}"
"""


def latency(ours, rounds, _):
    """Source to result of the whole appliance (frame published to result handed on, storing all the while), beside the
    same operations on one frame without any of it."""
    import h5py
    with tempfile.TemporaryDirectory(dir=ROOT, prefix="bench-store-") as folder:
        path, poni = os.path.join(folder, "frames.h5"), os.path.join(folder, "bench.poni")
        with h5py.File(path, "w") as file:
            noise = np.random.default_rng(3).poisson(2.0, (64, *EIGER_1M)).astype(np.uint16)
            file.create_dataset("data", data=np.concatenate([noise] * 4), chunks=(1, *EIGER_1M))
        with open(poni, "w", encoding="utf-8") as file:
            file.write("poni_version: 2\nDetector: Detector\nDetector_config: " + json.dumps(
                {"pixel1": 75e-6, "pixel2": 75e-6, "max_shape": EIGER_1M}) + "\nDistance: 0.15\nPoni1: 0.039\n"
                "Poni2: 0.04\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n")
        config = os.path.join(folder, "bench.toml")
        for rate in (20, 100):
            with open(config, "w", encoding="utf-8") as file:
                file.write(CONFIG.format(path=path, store=os.path.join(folder, "store"), poni=poni, rate=rate))
            bare, p50, p99 = [], [], []
            for _ in range(rounds):
                bare.append(statistics.median(ours("bare", *EIGER_1M) for _ in range(50)) * 1e6)
                done = subprocess.run([FLUXLINE, "replay", path, "--config", config, "--json"], capture_output=True,
                                      text=True, check=False)
                if done.returncode != 0:
                    sys.exit(done.stderr)
                summary = json.loads(done.stdout)
                assert summary["frames"]["lost"] == 0, summary
                p50.append(summary["latency_us"]["p50"])
                p99.append(summary["latency_us"]["p99"])
            over = statistics.median(latency / kernel for latency, kernel in zip(p50, bare))
            print(f"| source to result, Eiger 1M at {rate} Hz, stored | p50 {statistics.median(p50):.0f} µs, "
                  f"p99 {statistics.median(p99):.0f} µs | the bare kernels, one frame | {statistics.median(bare):.0f} µs "
                  f"| p50 is {over:.2f} × the bare kernels |", flush=True)


OPERATIONS = {"[]": "recorded only", '["statistics"]': "statistics", '["correct", "statistics", "azimuthal"]': "diffraction recipe"}
STREAM_CONFIG = """
[ring]
slots = 128
allow_transparent = true
[[source]]
kind = "dectris"
addresses = ["{address}"]
[store]
path = "{store}"
[recipe.bench]
technique = "diffraction"
operations = {operations}
"""


def stream(_, rounds, __):
    """The emulator's messages of a DECTRIS stream V2, taken by a run that stores and analyses, beside a bare PULL socket. In
    memory, where a disk is out of the way, and on a disk, past the page cache."""
    for place, base in (("in memory", "/dev/shm"), ("on the disk", ROOT)):
        with tempfile.TemporaryDirectory(dir=base, prefix="bench-store-") as folder:
            stream_into(folder, place, rounds)


def stream_into(folder, place, rounds):
    import zmq
    simulation, config = os.path.join(folder, "simulate.toml"), os.path.join(folder, "bench.toml")
    for detector, frames in (("eiger1m", 4000), ("eiger4m", 1000)):
        with open(simulation, "w", encoding="utf-8") as file:
            file.write(f'scene = "diffraction"\ndetector = "{detector}"\nframes = {frames}\nrate_hz = 0.0\n'
                       "distinct = 8\ncompressed = true\n")

        def emulator(port):
            address = f"tcp://127.0.0.1:{port}"
            return address, subprocess.Popen([FLUXLINE, "emulate", "--json", "--dectris", address, "--simulate", simulation],
                                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def bare(port):
            address, sender = emulator(port)
            socket = zmq.Context.instance().socket(zmq.PULL)
            socket.setsockopt(zmq.RCVHWM, 64)
            socket.connect(address)
            socket.recv(copy=False)
            first = time.perf_counter()
            size = sum(len(socket.recv(copy=False).buffer) for _ in range(frames))
            seconds = time.perf_counter() - first
            socket.close()
            sender.wait()
            return frames / seconds, size / seconds / 1e9

        for operations in OPERATIONS:
            with_azimuthal = "azimuthal" in operations
            rates, bares, latencies = [], [], []
            for round_ in range(rounds):
                bares.append(bare(32100 + 2 * round_))
                address, sender = emulator(32101 + 2 * round_)
                with open(config, "w", encoding="utf-8") as file:
                    file.write(STREAM_CONFIG.format(address=address, operations=operations, store=os.path.join(folder, "store")))
                    if with_azimuthal:
                        file.write("[recipe.bench.azimuthal]\nbins = 1000\n")
                done = subprocess.run([FLUXLINE, "run", "--once", config, "--json"], capture_output=True, text=True, check=False)
                sender.wait()
                if done.returncode != 0:
                    sys.exit(done.stderr)
                summary = json.loads(done.stdout)
                assert summary["frames"]["complete"] == frames, summary
                shutil.rmtree(os.path.join(folder, "store"))
                rates.append(summary["throughput"]["frames_per_s"])
                latencies.append((summary["latency_us"]["p50"], summary["latency_us"]["p99"]))
            ratios = [rate / bare_rate for rate, (bare_rate, _) in zip(rates, bares)]
            p50, p99 = (statistics.median(values) / 1e3 for values in zip(*latencies))
            print(f"| stream V2, {detector}, {OPERATIONS[operations]}, stored {place} | {statistics.median(rates):.0f}/s, "
                  f"p50 {p50:.1f} ms, p99 {p99:.1f} ms | bare PULL | {statistics.median(b[0] for b in bares):.0f}/s, "
                  f"{statistics.median(b[1] for b in bares):.2f} GB/s | Fluxline has **{statistics.median(ratios):.2f}** "
                  f"({min(ratios):.2f} to {max(ratios):.2f}) of its rate |", flush=True)


UDP_CONFIG = """
[ring]
slots = 1024
allow_transparent = true
[[source]]
kind = "udp"
addresses = ["10.78.0.2:50300"]
frames = {frames}
silence_timeout_s = 1.0
settle_s = 0.0
wavelength_m = 1e-10
distance_m = 0.2
beam_center_x_px = 500.0
beam_center_y_px = 250.0
[store]
path = "{store}"
compress = false
[feedback]
listen = "127.0.0.1:32300"
[recipe.bench]
technique = "diffraction"
operations = {operations}
"""


class Link:
    """Two network namespaces and a veth pair between them, MTU 9000."""

    def __enter__(self):
        self.names = [f"fl-bench-{side}-{os.getpid()}" for side in "sr"]
        sender, receiver = self.names
        try:
            for words in (f"netns add {sender}", f"netns add {receiver}",
                          f"-n {sender} link add d0 mtu 9000 type veth peer name d0 mtu 9000 netns {receiver}",
                          f"-n {sender} addr add 10.78.0.1/24 dev d0", f"-n {receiver} addr add 10.78.0.2/24 dev d0",
                          f"-n {sender} link set d0 up", f"-n {receiver} link set d0 up", f"-n {receiver} link set lo up"):
                subprocess.run(["ip", *words.split()], check=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)

    def start(self, side, *command):
        return subprocess.Popen(["ip", "netns", "exec", self.names[side], *command], stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.DEVNULL)


def highest(attempt):
    """The highest rate at which `attempt` loses nothing: as fast as the sender goes, else by halving between rates."""
    rate, lost = attempt(0)
    if lost == 0:
        return rate
    low, high = 0.0, rate
    for _ in range(6):
        middle = (low + high) / 2
        rate, lost = attempt(middle)
        low, high = (max(low, rate), high) if lost == 0 else (low, middle)
    return low


def udp(_, rounds, __):
    """Packets of a JUNGFRAU module over a veth pair: the highest rate without loss, beside a bare recvmmsg loop's."""
    frames, packets_a_frame = 3000, 128
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench-store-") as folder, Link() as link:
        simulation, config = os.path.join(folder, "simulate.toml"), os.path.join(folder, "bench.toml")
        with open(simulation, "w", encoding="utf-8") as file:
            file.write(f'scene = "diffraction"\ndetector = "custom"\nrows = 512\ncolumns = 1024\nframes = {frames}\n'
                       'rate_hz = 0.0\ndistinct = 8\n')

        def send(rate):
            sender = link.start(0, FLUXLINE, "emulate", "--json", "--udp", "10.78.0.2:50300", "--simulate", simulation,
                                "--rate", f"{rate:.1f}")
            report = json.loads(sender.communicate()[0])
            return frames / report["seconds"], report["packets"]

        def bare(rate):
            receiver = link.start(1, sys.executable, os.path.join(ROOT, "benches/recvmmsg.py"), "10.78.0.2", "50300",
                                  str(frames * packets_a_frame), "8240")
            receiver.stdout.readline()
            sent, packets = send(rate)
            return sent, packets - int(receiver.stdout.read())

        def fluxline(rate):
            store = tempfile.mkdtemp(dir=folder)
            with open(config, "w", encoding="utf-8") as file:
                file.write(UDP_CONFIG.format(frames=frames, store=store, operations=operations))
                if "azimuthal" in operations:
                    file.write("[recipe.bench.azimuthal]\nbins = 1000\n")
            run = link.start(1, FLUXLINE, "run", "--once", config, "--json")
            while not glob.glob(f"{store}/*/*/*/state.jsonl"):
                if run.poll() is not None:
                    sys.exit("a run with a UDP source was not armed")
                time.sleep(0.05)
            time.sleep(0.5)
            sent, packets = send(rate)
            summary = json.loads(run.communicate()[0])
            shutil.rmtree(store)
            # A frame that was received and could not be kept is lost as well.
            kept = summary["frames"]["complete"] * packets_a_frame
            return sent, packets - min(kept, summary["udp"]["placed"])

        for operations in OPERATIONS:
            ours, bares = [], []
            for _ in range(rounds):
                bares.append(highest(bare))
                ours.append(highest(fluxline))
            ratios = [own / limit for own, limit in zip(ours, bares)]
            gigabytes = 512 * 1024 * 2 / 1e9
            print(f"| UDP, JUNGFRAU module, {OPERATIONS[operations]}, stored as it comes | {statistics.median(ours):.0f}/s, "
                  f"{statistics.median(ours) * gigabytes:.2f} GB/s | bare recvmmsg | {statistics.median(bares):.0f}/s, "
                  f"{statistics.median(bares) * gigabytes:.2f} GB/s | Fluxline has **{statistics.median(ratios):.2f}** "
                  f"({min(ratios):.2f} to {max(ratios):.2f}) of its rate |", flush=True)


PARTS = {"stream": stream, "udp": udp, "azimuthal": azimuthal, "spots": spots, "backprojection": backprojection, "volumes": volumes, "fused": fused, "codec": codec, "writer": writer, "sustained": sustained, "latency": latency, "live": live, "tomography": tomography}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default 5)")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--large", action="store_true", help="also a 2048² slice from 1500 angles (minutes)")
    parser.add_argument("--short", action="store_true", help="fewer frames of live, small sizes of volumes and tomography: to see that they work")
    arguments = parser.parse_args()
    if arguments.short:
        shorten()
    unknown = [name for name in arguments.only.split(",") if name not in PARTS]
    if unknown:
        parser.error(f"--only {unknown[0]}: there is {', '.join(PARTS)}")
    ours = Ours() if set(arguments.only.split(",")) - {"stream", "udp", "spots", "live", "tomography"} else None
    load = os.getloadavg()[0]
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    print(f"{model}, {os.cpu_count()} cores, load before {load:.1f}, {arguments.rounds} rounds\n")
    print("| what | Fluxline, median | beside | its median | beside / Fluxline, median (range) |\n"
          "| --- | --- | --- | --- | --- |", flush=True)
    for name in arguments.only.split(","):
        sizes = {"short": arguments.short} if name in ("volumes", "tomography") else {}
        PARTS[name](ours, arguments.rounds, arguments.large, **sizes)


if __name__ == "__main__":
    main()
