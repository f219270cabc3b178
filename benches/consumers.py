"""How old a result is when a program outside has it, alone and beside a hundred consumers, and how soon a rule decides.

    make bench-consumers       # or: .venv-clients/bin/python benches/consumers.py [--rounds N] [--seconds S]

For each detector and rate: the appliance's own figures (arrival of a frame to its result, of the deciding frame to the
decision), and those of a client in another process (arrival to the message in its hands, by one clock). Each round
measures once with that client alone and once beside 100 more, in turn: 40 that take the newest result ten times a
second, 40 that take every result, 20 that never read. Everything runs on this machine and shares its cores. Results
count from a second after all are connected; the longest age before that is said apart, for connecting has its price.
The store is on the disk of TMPDIR.
"""

import argparse
import json
import multiprocessing
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FLUXLINE = os.environ.get("FLUXLINE_BINARY", os.path.join(ROOT, "target/release/fluxline"))
CONFIG = """
[ring]
slots = {slots}
allow_transparent = true
[[source]]
kind = "simulate"
scene = "diffraction"
detector = "{detector}"
frames = {frames}
rate_hz = {rate}
distinct = 16
compressed = true
[store]
path = "{store}"
[feedback]
listen = "127.0.0.1:0"
[recipe.powder]
technique = "diffraction"
operations = ["correct", "statistics", "azimuthal"]
[recipe.powder.azimuthal]
bins = 1000
[rule.seldom]
when = "int(frame) % 20 == 0"
"""
CASES = {"eiger1m": (100.0, 250.0, 500.0), "eiger4m": (30.0,)}
SAMPLED, LOSSLESS, STUCK = 40, 40, 20


class Appliance:
    """A server of its own. Its store is on a disk: in memory the kernel's copying of blocks would take the cores."""

    def __init__(self, detector, rate, seconds):
        self.folder = tempfile.TemporaryDirectory(prefix="fluxline-bench-")
        path = os.path.join(self.folder.name, "bench.toml")
        slots = 64 if detector == "eiger4m" else 128
        with open(path, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(detector=detector, rate=rate, frames=int(rate * seconds), slots=slots,
                                     store=os.path.join(self.folder.name, "store")))
        self.process = subprocess.Popen([FLUXLINE, "run", path], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if " listens at " in line:
                self.url = line.split(" listens at ")[1].strip()
                break
        else:
            sys.exit(f"the appliance did not begin: {path}")
        ask = urllib.request.Request(self.url + "/api/v1/runs", b"{}", {"content-type": "application/json"})
        with urllib.request.urlopen(ask, timeout=120) as answer:
            self.run = json.load(answer)["id"]

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def json(self, path):
        return json.loads(self.get("/api/v1/" + path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        self.folder.cleanup()


def watch(url, pipe):
    """Takes every result; sends back (frame number, time in hand, age when sent), µs."""
    from websockets.sync.client import connect
    seen = []
    with connect(url.replace("http", "ws", 1) + "/api/v1/runs/current/results?policy=lossless&from=0", max_size=None) as results:
        pipe.send("ready")
        try:
            for message in results:
                now = time.monotonic()
                result = json.loads(message)
                seen.append((result["frame_number"], now * 1e6, result["sent_age_us"]))
        except Exception as error:  # the server closes when the run has ended, in one way or another
            if not seen:
                raise SystemExit(f"no result: {error}") from error
    pipe.send(seen)


def crowd(url, pipe):
    """The hundred others. They look at nothing that they read: what programs do with results is not to be measured here."""
    host, port = url.split("//")[1].split(":")
    reading = selectors.DefaultSelector()
    stuck = []
    for policy, count in (("sampled&max_rate_hz=10", SAMPLED), ("lossless", LOSSLESS), ("lossless&curves=true", STUCK)):
        for _ in range(count):
            one = socket.socket()
            if "curves" in policy:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stuck.append(one)
            else:
                reading.register(one, selectors.EVENT_READ)
            one.connect((host, int(port)))
            one.sendall(f"GET /api/v1/runs/current/results?policy={policy} HTTP/1.1\r\nHost: {host}\r\n"
                        "Accept: text/event-stream\r\n\r\n".encode())
    pipe.send("ready")
    while reading.get_map():
        for ready, _ in reading.select():
            if not ready.fileobj.recv(1 << 16):
                reading.unregister(ready.fileobj)


def start(work, url):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=work, args=(url, theirs), daemon=True)
    process.start()
    ours.recv()
    return process, ours


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def bucket(metrics, name, share):
    """Upper edge, in ms, of the histogram's bucket that holds this share."""
    edges = []
    for line in metrics.splitlines():
        if line.startswith(name + "_bucket"):
            edge = line.split('le="')[1].split('"')[0]
            edges.append((float("inf") if edge == "+Inf" else float(edge), float(line.rsplit(" ", 1)[1])))
    total = edges[-1][1] if edges else 0
    return next((edge * 1e3 for edge, count in edges if total and count >= share * total), float("nan"))


def once(detector, rate, seconds, crowded):
    with Appliance(detector, rate, seconds) as appliance:
        watcher, results = start(watch, appliance.url)
        others = start(crowd, appliance.url) if crowded else None
        settled = (time.monotonic() + 1.0) * 1e6
        seen = results.recv()
        watcher.join()
        if others:
            others[0].kill()
        while (detail := appliance.json(f"runs/{appliance.run}")).get("summary") is None:
            time.sleep(0.2)
        lines, first = {}, 0
        while page := appliance.json(f"runs/{appliance.run}/ledger?first={first}&limit=1000")["entries"]:
            lines |= {line["frame_number"]: line["arrival_us"] for line in page}
            first = page[-1]["frame_number"] + 1
        # The run's clock begins at some moment of ours: the one that makes the fastest message take no time at all.
        began = min(now - lines[number] - age for number, now, age in seen)
        ages = [(now - lines[number] - began) * 1e-3 for number, now, _ in seen if now >= settled]
        coming = [(now - lines[number] - began) * 1e-3 for number, now, _ in seen if now < settled]
        summary, metrics = detail["summary"], appliance.get("/metrics").decode()
        assert summary["frames"]["lost"] == 0, summary["frames"]
        arrivals = sorted(lines.values())
        name = "fluxline_decision_latency_seconds"
        return {"own": [summary["latency_us"][which] * 1e-3 for which in ("p50", "p99", "p999")],
                "client": [quantile(ages, share) for share in (0.5, 0.99, 0.999)],
                "coming": [max(coming)],
                "decision": [bucket(metrics, name, share) for share in (0.5, 0.99)],
                "rate": (len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) * 1e6, "seen": len(seen), "frames": len(lines)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each comparison (default 3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of a run (default 10)")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}, {arguments.rounds} rounds of {arguments.seconds:g} s\n")
    print("| frames, consumers | results per second | appliance p50, p99, p99.9, ms | client p50, p99, p99.9, ms | longest while they come, ms | decision p50, p99 at most, ms |\n"
          "| --- | --- | --- | --- | --- | --- |")
    for detector, rates in CASES.items():
        for rate in rates:
            rounds = [[once(detector, rate, arguments.seconds, crowded) for crowded in (False, True)]
                      for _ in range(arguments.rounds)]
            for crowded in (False, True):
                took = [pair[crowded] for pair in rounds]
                median = lambda name: ", ".join(f"{statistics.median(values):.1f}" for values in zip(*(one[name] for one in took)))
                print(f"| {detector} at {rate:g} Hz, {'1 and 100' if crowded else '1'} | "
                      f"{statistics.median(one['rate'] for one in took):.1f} | {median('own')} | {median('client')} | "
                      f"{median('coming')} | {median('decision')} |", flush=True)
            share = statistics.median(pair[1]["rate"] / pair[0]["rate"] for pair in rounds)
            ratios = [pair[1]["client"][1] / pair[0]["client"][1] for pair in rounds]
            slower, least, most = statistics.median(ratios), min(ratios), max(ratios)
            print(f"|   beside 100 | {share:.3f} of the rate | | p99 is {slower:.2f} of that alone ({least:.2f} to {most:.2f}) | | |", flush=True)


if __name__ == "__main__":
    main()
