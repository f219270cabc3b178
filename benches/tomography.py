"""`--only tomography`: tomography through the built binary, from a simulated camera to slices and volume.

The case that RECAST3D published: 400 projections of 768 × 520 as fast as they go, three slices, from arming, darks and flats
included, to the final slices. Live: three slices of 1024², at half of the rate that the machine sustains: a projection's arrival to its result,
to its contribution in the slices that anybody may fetch (they are renewed ten times a second), and the last projection's
arrival to the final slices. The volume of 180 projections of 640 × 640 beside its back-projection alone, and from the last
of 360 projections of 512 × 512 to the volume in its file, where it is begun while they come and where it is not. `--short`
takes a quarter of the columns and rows.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FLUXLINE = os.environ.get("FLUXLINE_BINARY", os.path.join(ROOT, "target/release/fluxline"))
ADDRESS = "127.0.0.1:32311"
DARKS_FLATS = 20
CONFIG = """
[ring]
slots = {slots}
allow_transparent = true
[[source]]
kind = "simulate"
scene = "tomography"
rows = {rows}
columns = {columns}
frames = {frames}
darks = 10
flats = 10
rate_hz = {rate:.3f}
[store]
path = "{store}"
[feedback]
listen = "{address}"
[recipe.ct]
technique = "tomography"
operations = {operations}
"""
SLICES = ["correct", "backproject"]


def write(folder, rows, columns, frames, rate, operations, more=""):
    path = os.path.join(folder, "bench.toml")
    text = CONFIG.format(rows=rows, columns=columns, frames=frames, rate=rate, slots=64, address=ADDRESS,
                         store=os.path.join(folder, "store"), operations=json.dumps(operations))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + more)
    return path


def get(path):
    with urllib.request.urlopen(f"http://{ADDRESS}/api/v1/{path}", timeout=10) as answer:
        return json.load(answer)


def arm(name):
    """Answers when the simulated frames are made, just before the first comes."""
    request = urllib.request.Request(f"http://{ADDRESS}/api/v1/runs", json.dumps({"name": name}).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


@contextlib.contextmanager
def served(folder, config):
    """A served appliance, whose store is removed when it has ended."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([FLUXLINE, "run", config], stdout=said, stderr=said)
        try:
            until = time.monotonic() + 120
            while True:
                try:
                    get("status")
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > until:
                        said.seek(0)
                        raise SystemExit(said.read()) from None
                    time.sleep(0.02)
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    shutil.rmtree(os.path.join(folder, "store"))


def scan(folder, config, frames, rate):
    """One scan of a served appliance: seconds from arming to the final slices and from the last projection, ages in seconds
    of what the slices rest on, and the latencies of results."""
    with served(folder, config):
        arm("scan")
        armed, last = time.monotonic(), None
        ages = []
        while True:
            used = min(image["frames_used"] for image in get("runs/scan/slices")["slices"])
            complete = get("status")["frames"]["complete"]
            now = time.monotonic()
            came = max(0, complete - DARKS_FLATS)
            if came and came < frames and rate:
                ages.append((came - used) / rate)
            if came >= frames and last is None:
                last = now
            if used >= frames:
                final = now
                break
            if now > armed + 600:
                raise SystemExit("the scan does not end: " + json.dumps(get("status")["frames"]))
            time.sleep(0.001)
        while get("runs/scan").get("summary") is None:
            time.sleep(0.05)
        summary = get("runs/scan")["summary"]
    return final - armed, final - last, ages, summary


def volume_after(folder, config, frames):
    """Seconds from the last projection to the volume in its file, how many were summed by then, and the run's latencies."""
    with served(folder, config):
        arm("scan")
        while get("status")["frames"]["complete"] < frames + DARKS_FLATS:
            time.sleep(0.005)
        last = time.monotonic()
        while True:
            derived = get("status")["derived"]
            if derived and derived["state"] in ("complete", "failed"):
                break
            time.sleep(0.005)
        seconds = time.monotonic() - last
        summed = get("runs/scan-volume")["record"]["summary"]["while_recording"]["projections"]
        latency = get("runs/scan")["summary"]["latency_us"]
    return seconds, summed, latency


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def tomography(_, rounds, large, short=False):
    by = 4 if short else 1
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench-ct-") as folder:
        rows, columns, frames = 520 // by, 768 // by, 400
        config = write(folder, rows, columns, frames, 0.0, SLICES)
        times = [scan(folder, config, frames, 0.0)[0] for _ in range(rounds)]
        print(f"| {frames} projections of {columns} × {rows}, three slices, from arming to the final slices | {statistics.median(times) * 1e3:.0f} ms "
              f"on {cores} cores ({min(times) * 1e3:.0f} to {max(times) * 1e3:.0f}) | RECAST3D as published, its GPU, 768 × 520 | 728 ms "
              f"| {'of a smaller scan' if short else f'**{0.728 / statistics.median(times):.2g}**'} |", flush=True)
        rows, columns, frames = 256 // by, 1024 // by, 720
        config = write(folder, rows, columns, frames, 0.0, SLICES)
        sustained = frames / scan(folder, config, frames, 0.0)[0]
        rate = sustained / 2
        config = write(folder, rows, columns, frames, rate, SLICES)
        found = [scan(folder, config, frames, rate) for _ in range(rounds)]
        latency = [statistics.median(summary["latency_us"][name] for *_, summary in found) / 1e3 for name in ("p50", "p99")]
        ages = [age for _, _, ages, _ in found for age in ages]
        tails = [tail for _, tail, _, _ in found]
        title = f"three slices of {columns}² from projections of {columns} × {rows}, {rate:.0f}/s, half of what {cores} cores sustain"
        print(f"| {title}: arrival to result | p50 {latency[0]:.1f} ms, p99 {latency[1]:.1f} ms | | | |\n"
              f"| arrival to contribution in what may be fetched | p50 {quantile(ages, 0.5) * 1e3:.0f} ms, p99 {quantile(ages, 0.99) * 1e3:.0f} ms "
              f"| | | |\n| last projection to final slices | {statistics.median(tails) * 1e3:.0f} ms ({min(tails) * 1e3:.0f} to "
              f"{max(tails) * 1e3:.0f}) | | | |", flush=True)
        rows = columns = 640 // by
        config = write(folder, rows, columns, 180, 0.0, SLICES + ["volume"], "[recipe.ct.volume]\nwhile_recording = false\n")
        ratios, totals = [], []
        for _ in range(rounds):
            out = subprocess.run([FLUXLINE, "run", "--once", "--json", config], check=True, capture_output=True, text=True)
            seconds = json.loads(out.stdout)["derived"]["results"]["seconds"]
            totals.append(sum(seconds.values()))
            ratios.append(totals[-1] / seconds["reconstruct"])
            shutil.rmtree(os.path.join(folder, "store"))
        rate = rows * columns * columns * 180 / 1e9 / statistics.median(totals) / cores
        print(f"| volume of {rows}³ from 180 projections, read, made and written | {statistics.median(totals):.2f} s, {rate:.2g} GUPS per core | "
              f"its back-projection alone | {statistics.median(totals) / statistics.median(ratios):.2f} s | whole / back-projection "
              f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)
        rows = columns = 512 // by
        frames, rate = 360, 15.0
        found = {True: [], False: []}
        for _ in range(rounds):
            for begun in found:
                config = write(folder, rows, columns, frames, rate, SLICES + ["volume"],
                               f"[recipe.ct.volume]\nwhile_recording = {str(begun).lower()}\n")
                found[begun].append(volume_after(folder, config, frames))
        seconds = {begun: statistics.median(seconds for seconds, *_ in runs) for begun, runs in found.items()}
        p99 = {begun: statistics.median(latency["p99"] for *_, latency in runs) / 1e3 for begun, runs in found.items()}
        ratios = sorted(after[0] / meanwhile[0] for meanwhile, after in zip(found[True], found[False]))
        summed = min(summed for _, summed, _ in found[True])
        print(f"| last of {frames} projections of {columns} × {rows}, {rate:.0f}/s, to their volume in its file; arrival to result meanwhile "
              f"| {seconds[True]:.2f} s, {summed} summed by then; p99 {p99[True]:.0f} ms | made when the run is closed "
              f"| {seconds[False]:.2f} s; p99 {p99[False]:.0f} ms | **{statistics.median(ratios):.1f}** ({ratios[0]:.1f} to {ratios[-1]:.1f}) |", flush=True)
