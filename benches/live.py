"""`--only live`: the whole diffraction recipe through the built binary, as it runs at a beamline: compressed frames from the
simulator, or real ones replayed, are corrected, integrated, searched for spots, decided on and stored.

For each size: the sustained rate on one and on two cores, the stage that limits it, the processor's time per frame by stage
and by operation, and frame-in to result-out at half of the sustained rate. Stored in memory: what a disk takes is the
writer's comparison. Times of the processor are of the threads while the run records, so what a source prepares is not in them.
"""

import glob
import gzip
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FLUXLINE = os.environ.get("FLUXLINE_BINARY", os.path.join(ROOT, "target/release/fluxline"))
# Frames are many times the slots of the ring: the rate is that of arrivals, and the last slots fill unhindered.
SIZES = {"eiger1m": (1065, 1030, 600), "eiger4m": (2167, 2070, 200), "eiger16m": (4371, 4150, 160)}
REAL_FRAMES = 160
WHOLE = ["correct", "statistics", "spots", "hits", "azimuthal"]
# Each adds one kind of work to the one before it.
STEPS = {"recorded only": [], "decoding, statistics, curve": ["correct", "statistics", "azimuthal"], "spots, hits": WHOLE}
# Beginnings of the names of threads, as the kernel cuts them.
STAGES = {"fluxline-receiv": "receive", "fluxline-work": "decode and drive", "fluxline-fused": "fused", "fluxline-write": "write",
          "fluxline-disk": "write", "fluxline-sync": "write", "fluxline-feedb": "results", "fluxline-run": "rest"}
CONFIG = """
[ring]
slots = 16
allow_transparent = true
[[source]]
{source}
rate_hz = {rate:.3f}
[store]
path = "{store}"
[feedback]
listen = "127.0.0.1:{port}"
[recipe.bench]
technique = "diffraction"
operations = {operations}
"""
TICK = os.sysconf("SC_CLK_TCK")
PROGRAM = os.path.basename(FLUXLINE)[:15]


def shorten():
    """Fewer frames, to see that everything works: the last slots of the ring then weigh more in the rates."""
    global REAL_FRAMES
    for detector, (rows, columns, frames) in SIZES.items():
        SIZES[detector] = (rows, columns, max(frames // 4, 48))
    REAL_FRAMES = 48


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def threads(pid):
    """Processor seconds of every thread that there is, by its number."""
    seconds = {}
    for path in glob.glob(f"/proc/{pid}/task/*/stat"):
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError:
            continue  # it has ended meanwhile
        name, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        number = path.split("/")[4]
        # The main thread drives the interface; the device's threads have the program's name and no other.
        stage = next((stage for start, stage in STAGES.items() if name.startswith(start)), None)
        stage = stage or ("device" if name == PROGRAM and number != str(pid) else "rest")
        seconds[number] = (stage, (int(fields[11]) + int(fields[12])) / TICK)
    return seconds


def waiting(port):
    """Frames that are not analysed yet, frames that wait for storage, slots in use and slots."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}

    def value(start):
        return next((float(line[len(start) :]) for line in lines if line.startswith(start)), 0.0)

    # A worker takes what waits into its batch: the queue before it tells nothing.
    received, done = value('fluxline_frames_total{state="complete"} '), value('fluxline_frames_analysed_total{outcome="done"} ')
    return {"analysis": received - done, "storage": value('fluxline_queue_frames{queue="storage"} '),
            "ring": value('fluxline_ring_slots{state="used"} '), "slots": value('fluxline_ring_slots{state="total"} ')}


def run(folder, source, operations, rate=0.0, cores=None, tables=""):
    """One run: its summary, processor seconds by stage while it recorded, and the mean of what waited."""
    config, store = os.path.join(folder, "live.toml"), tempfile.mkdtemp(dir=folder)
    port = free_port()
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG.format(source=source, rate=rate, store=store, port=port, operations=json.dumps(operations)))
        if "azimuthal" in operations:
            file.write("[recipe.bench.azimuthal]\nbins = 1000\nerror_model = \"poisson\"\n" + tables)
    command = (["taskset", "-c", cores] if cores else []) + [FLUXLINE, "run", "--once", config, "--json"]
    with open(os.path.join(folder, "said"), "w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        before, last, seen = None, {}, []
        while process.poll() is None:
            now = threads(process.pid)
            if before is None and any(stage == "receive" for stage, _ in now.values()):
                before = now
            last.update(now)
            if before is not None:
                seen.append(waiting(port))
            time.sleep(0.02)
        out = process.stdout.read()
        if process.returncode != 0:
            said.seek(0)
            sys.exit(said.read())
    shutil.rmtree(store)
    summary = json.loads(out)
    frames = summary["frames"]
    assert frames["complete"] == frames["expected"] and summary["outcomes"]["done"] == frames["complete"], summary
    spent = {}
    for number, (stage, seconds) in last.items():
        spent[stage] = spent.get(stage, 0.0) + seconds - (before or {}).get(number, (stage, 0.0))[1]
    filled = [sample for sample in seen if sample.get("ring", 0.0) > 0]
    mean = {key: statistics.mean(sample[key] for sample in filled) if filled else 0.0 for key in ("analysis", "storage", "ring", "slots")}
    return summary, {stage: seconds / frames["complete"] for stage, seconds in spent.items()}, mean


def limit(spent, mean):
    """The stage that limits: the source, where slots are free; else where the frames are that hold the slots, and of the analysis
    the part that takes most of the processor."""
    if mean["ring"] < mean["slots"] / 2:
        return "source"
    if mean["analysis"] < mean["ring"] / 2:
        return "storage"
    analysis = {stage: spent.get(stage, 0.0) for stage in ("device", "decode and drive", "fused")}
    return max(analysis, key=analysis.get)


def measure(folder, title, source, frame_bytes, rounds, tables=""):
    """Prints the rows of one source."""
    rates = {"0": [], "0,1": []}
    for _ in range(rounds):
        for cores, found in rates.items():
            summary, spent, mean = run(folder, source, WHOLE, cores=cores, tables=tables)
            found.append((summary["throughput"]["frames_per_s"], sum(spent.values()), spent, mean))
    one, two = (statistics.median(rate for rate, *_ in rates[cores]) for cores in ("0", "0,1"))
    growth = statistics.median(b[0] / a[0] for a, b in zip(rates["0"], rates["0,1"]))
    middle = sorted(rates["0,1"], key=lambda found: found[1])[rounds // 2]
    total, spent, mean = middle[1:]
    stages = ", ".join(f"{stage} {seconds * 1e3:.2f}" for stage, seconds in sorted(spent.items(), key=lambda item: -item[1]) if seconds > 2e-5)
    print(f"| {title}, whole recipe, stored | {two:.1f}/s on two cores, {two * frame_bytes / 1e9:.2f} GB/s of pixels | one core | {one:.1f}/s "
          f"| two have **{growth:.2f}** × the rate of one |", flush=True)
    print(f"| processor per frame, ms | {total * 1e3:.2f}, {total / frame_bytes * 1e9:.3f} ns/B | by stage | {stages} "
          f"| limits: {limit(spent, mean)}; of {mean['slots']:.0f} slots {mean['ring']:.0f} in use, not analysed {mean['analysis']:.0f}, waiting for storage {mean['storage']:.0f} |", flush=True)
    before, steps = 0.0, []
    for step, operations in STEPS.items():
        costs = [sum(run(folder, source, operations, tables=tables)[1].values()) for _ in range(rounds)]
        now = statistics.median(costs)
        steps.append(f"{step} {(now - before) * 1e3:.2f}")
        before = now
    print(f"| the same by operation, ms | | each beside the recipe before it | {', '.join(steps)} | |", flush=True)
    latencies = [run(folder, source, WHOLE, rate=two / 2, tables=tables)[0]["latency_us"] for _ in range(rounds)]
    p50, p99 = (statistics.median(latency[name] for latency in latencies) / 1e3 for name in ("p50", "p99"))
    print(f"| frame-in to result-out at half of that | p50 {p50:.1f} ms, p99 {p99:.1f} ms | | | |", flush=True)
    cores = 17e9 / frame_bytes * total
    print(f"| cores for 17 GB/s at this cost | {cores:.0f} | with the growth measured above | {cores * 2 / growth:.0f} | |", flush=True)


def real(folder, path, copies):
    """A real frame as an HDF5 file of so many, one compressed chunk written again and again, and its geometry."""
    import fabio
    import h5py
    import hdf5plugin
    import numpy as np
    unpacked = os.path.join(folder, "frame.cbf")
    with gzip.open(path) as packed, open(unpacked, "wb") as file:
        shutil.copyfileobj(packed, file)
    data = fabio.open(unpacked).data
    # As the detector's own stream has it: what is masked is the largest value.
    frame = np.where(data < 0, 65535, np.minimum(data, 65535)).astype("<u2")
    target = os.path.join(folder, "real.h5")
    with h5py.File(target, "w") as h:
        one = h.create_dataset("one", data=frame[None], chunks=(1, *frame.shape), **hdf5plugin.Bitshuffle(cname="lz4"))
        many = h.create_dataset("entry/data/data", (copies, *frame.shape), "<u2", chunks=(1, *frame.shape),
                                **hdf5plugin.Bitshuffle(cname="lz4"))
        filters, chunk = one.id.read_direct_chunk((0, 0, 0))
        for number in range(copies):
            many.id.write_direct_chunk((number, 0, 0), chunk, filters)
    poni = os.path.join(folder, "real.poni")
    with open(poni, "w", encoding="utf-8") as file:
        file.write("poni_version: 2\nDetector: Detector\nDetector_config: " + json.dumps(
            {"pixel1": 75e-6, "pixel2": 75e-6, "max_shape": frame.shape}) + f"\nDistance: 0.2\nPoni1: {frame.shape[0] * 37.5e-6}\n"
            f"Poni2: {frame.shape[1] * 37.5e-6}\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n")
    return target, poni, frame.shape, len(chunk)


def live(_, rounds, __):
    data = os.environ.get("FLUXLINE_DATA", os.path.join(ROOT, "../shared/data"))
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench-live-") as folder:
        for detector, (rows, columns, frames) in SIZES.items():
            source = (f'kind = "simulate"\nscene = "diffraction"\ndetector = "{detector}"\nframes = {frames}\ndistinct = 8\n'
                      "compressed = true")
            measure(folder, f"simulated {detector}, u16 bitshuffle-LZ4", source, 2 * rows * columns, rounds)
        path = os.path.join(data, "mx-eiger-therm/dlsnxs2cbf_therm_0001.cbf.gz")
        if not os.path.exists(path):
            print(f"SKIPPED real frames: there is no {path}")
            return
        file, poni, shape, chunk = real(folder, path, REAL_FRAMES)
        source = f'kind = "replay"\npath = "{file}"\ndataset = "/entry/data/data"'
        measure(folder, f"a real Eiger 16M frame, {chunk / 1e6:.1f} MB compressed, replayed", source, 2 * shape[0] * shape[1], rounds,
                tables=f'poni = "{poni}"\n')
