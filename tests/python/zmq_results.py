"""Results by ZeroMQ PUB, as pyzmq gets them: `zmq_results.py URL ADDRESS POLICY`. Arms a run and prints what came."""

import io
import json
import sys
import time
import urllib.request

import numpy as np
import zmq


RATE_HZ = 10.0


def main(url, address, policy):
    context = zmq.Context()
    reads, stuck, others = (context.socket(zmq.SUB) for _ in range(3))
    # One that never reads, and one that wants something else.
    stuck.setsockopt(zmq.RCVHWM, 1)
    for socket, topic in ((reads, b""), (stuck, b""), (others, b"nothing")):
        socket.setsockopt(zmq.SUBSCRIBE, topic)
        socket.connect(address)
    request = urllib.request.Request(f"{url}/api/v1/runs", b'{"name": "live"}', {"content-type": "application/json"})
    urllib.request.urlopen(request).read()
    results = []
    while True:
        assert reads.poll(60_000), "nothing more came"
        topic, run, text = reads.recv_multipart()
        assert run == b"live", run
        if topic == b"end":
            break
        assert topic == b"result", topic
        results.append(json.loads(text))
    sequences = [result["sequence"] for result in results]
    assert len(results) > 10 and sequences == sorted(set(sequences)), sequences
    assert all(result["sent_age_us"] >= result["age_us"] and not result["curves"] for result in results)
    assert not others.poll(100), "a topic that was not subscribed to"
    # The files are closed a moment after the last result.
    end = time.monotonic() + 60
    while json.load(urllib.request.urlopen(f"{url}/api/v1/runs/live"))["summary"] is None:
        assert time.monotonic() < end, "the run does not end"
        time.sleep(0.05)
    stored = urllib.request.urlopen(f"{url}/api/v1/runs/live/h5/data?file=live_master.h5&path=/entry/results/scalars/sum&format=npy")
    sums = np.load(io.BytesIO(stored.read()))
    assert all(result["scalars"]["sum"] == sums[result["frame_number"]] for result in results)
    # When each was sent, by the appliance's own clock: however busy the machine is, a sample never comes sooner than its rate allows.
    ledger = json.load(urllib.request.urlopen(f"{url}/api/v1/runs/live/ledger?limit=10000"))["entries"]
    arrived_us = {entry["frame_number"]: entry["arrival_us"] for entry in ledger}
    sent_us = np.array([arrived_us[result["frame_number"]] + result["sent_age_us"] for result in results])
    apart_s = np.diff(sent_us) / 1e6
    if policy == "sampled":
        assert apart_s.min() > 0.8 / RATE_HZ, apart_s
    else:
        assert results[-1]["frame_number"] == len(sums) - 1, "the newest is not left out"
        assert apart_s.min() < 0.8 / RATE_HZ, "as results come"
    print(f"{len(results)} of {len(sums)} results, the last of frame {results[-1]['frame_number']}")


main(*sys.argv[1:])
