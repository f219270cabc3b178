"""The clients against a running appliance: `clients.py package|bluesky|epics|tango|kafka URL`. Prints what it saw."""

import asyncio
import sys
import time

import numpy as np

FRAMES = 200


def package(url):
    from fluxline import AsyncFluxline, Fluxline, FluxlineError

    with Fluxline(url) as fluxline:
        run = fluxline.arm(sample="CeO2", metadata={"operator": "Ada"})
        results = list(run.results(first=0))
        detail = run.wait(60, progress=True)
        assert detail.state == "complete" and detail.frames["complete"] == FRAMES, detail
        assert [result.frame_number for result in results] == list(range(FRAMES)), "every result, in order, once"
        assert detail.raw["record"]["metadata"]["operator"] == "Ada"
        frame, result = run.frame(7), results[7]
        counted = run.mask() == 0
        assert frame.dtype == np.uint16 and frame.shape == counted.shape == (200, 220)
        assert frame[counted].sum(dtype=np.float64) == result.scalars["sum"] and frame[counted].max() == result.scalars["max"]
        curve = run.profile("sum")
        assert curve.axis.shape == curve.values.shape == curve.errors.shape == (100,) and curve.frames_used == FRAMES
        assert np.array_equal(run.profile(7).values, result.curves["intensity"], equal_nan=True)
        (decision,) = run.decisions()
        assert (decision.rule, decision.frame_number) == ("bright", 40), decision
        events = list(run.events())
        assert (events[-1].event, [event.sequence for event in events]) == ("end", list(range(len(events)))), events
        assert {event.event for event in events} >= {"armed", "first_frame", "decision", "file_closed"}, events
        assert run.id in [line.id for line in fluxline.runs(query="sample:CeO2")]
        fields = {field.name: field for field in fluxline.arming()}
        assert (fields["sample"].value, fields["recipe"].choices) == ("CeO2", ["powder"]), fields
        assert fields["name"].states == ["idle", "error"] and fields["frames_expected"].type == "integer", fields
        assert len(run.ledger(limit=FRAMES)) == FRAMES
        for call, status, words in ((run.stop, 409, "complete"), (fluxline.run("none").detail, 404, "none"),
                                    (lambda: fluxline.arm(recipe="wrong"), 422, "wrong")):
            try:
                call()
            except FluxlineError as error:
                assert error.status == status and words in error.message, (error.status, error)
            else:
                raise AssertionError(f"{call} was not refused")

    with Fluxline(url) as first, Fluxline(url) as second:
        runs = [client.arm(sample="once", key="scan-17") for client in (first, second)]
        runs[0].stop()
        runs[0].wait(60)
        assert runs[0].id == runs[1].id == first.arm(sample="once", key="scan-17").id
        assert len(second.runs(query="sample:once")) == 1

    async def loop():
        async with AsyncFluxline(url) as fluxline:
            assert "metadata" in [field.name for field in await fluxline.arming()]
            run = await fluxline.arm()
            numbers = [result.frame_number async for result in run.results("sampled", max_rate_hz=5.0, curves=False)]
            detail = await run.wait(60)
            events = [event.event async for event in run.events()]
            assert detail.state == "complete" and numbers == sorted(numbers) and 2 <= len(numbers) < FRAMES / 2, numbers
            assert events[-1] == "end", events

    asyncio.run(loop())
    print("package: every result once and in order, arrays as stored, decisions, events, refusals")


def bluesky(url):
    """A plan that scans until the rule `bright` has fired."""
    import bluesky.plan_stubs as bps
    from bluesky import RunEngine
    from bluesky.preprocessors import run_decorator, stage_decorator
    from fluxline.bluesky import FluxlineDetector
    from ophyd_async.core import init_devices, soft_signal_rw

    engine, documents = RunEngine({}), []
    with init_devices():
        detector = FluxlineDetector(url, scalars=["sum", "max"], frames_per_point=10, name="fluxline")
        motor = soft_signal_rw(float, name="motor")

    @stage_decorator([detector])
    @run_decorator()
    def scan_until_decided(points):
        for point in range(points):
            yield from bps.mv(motor, float(point))
            yield from bps.trigger_and_read([detector, motor])
            if (yield from bps.rd(detector.decision)) == "bright":
                return

    engine(scan_until_decided(19), lambda name, document: documents.append((name, document)))
    points = [document["data"] for name, document in documents if name == "event"]
    assert documents[-1][0] == "stop" and documents[-1][1]["exit_status"] == "success", documents[-1]
    # The rule holds from frame 40 on; a point is 10 frames, and the decision is read behind it.
    # On a busy machine it may be there before the point that has frame 40.
    assert 1 <= len(points) <= 12, points
    assert [point["fluxline-decision"] for point in points] == [""] * (len(points) - 1) + ["bright"], points
    assert all(point["fluxline-sum"] > 0 and point["motor"] == number for number, point in enumerate(points)), points
    print(f"bluesky: stopped after {len(points)} of 19 points")


def wait_for(what, ready, seconds=60):
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def epics(url):
    from fluxline import Fluxline
    from fluxline.epics import SideCar
    from p4p.client.thread import Context

    with Fluxline(url) as fluxline, SideCar(fluxline, "T:", image_s=0.2, isolate=True) as side_car:
        with Context("pva", conf=side_car.conf(), useenv=False) as client:
            get = lambda name: client.get(f"T:{name}", timeout=10)  # noqa: E731
            assert get("DetectorState_RBV") in ("", "idle")
            client.put("T:Acquire", 1, timeout=10)
            wait_for("a run", lambda: get("DetectorState_RBV") == "recording")
            wait_for("frames", lambda: get("ArrayCounter_RBV") > 50)
            wait_for("a sum", lambda: get("Result:sum") > 0)
            wait_for("a decision", lambda: get("Decision") == "bright")
            image = client.get("T:Image", timeout=30)
            assert image.shape == (200, 220) and image.max() > 0, image.shape
            wait_for("the end", lambda: get("DetectorState_RBV") == "idle")
            wait_for("its count", lambda: get("NumCaptured") == FRAMES and get("Acquire") == 0)
            client.put("T:Acquire", 1, timeout=10)
            wait_for("another run", lambda: get("DetectorState_RBV") == "recording")
            client.put("T:Acquire", 0, timeout=10)
            wait_for("its end", lambda: get("DetectorState_RBV") == "idle")
    print("epics: a run armed, its values and picture read, another one stopped")


def tango(url):
    from fluxline.tango import FluxlineDevice
    from tango import DevState
    from tango.test_context import DeviceTestContext

    with DeviceTestContext(FluxlineDevice, properties={"url": url}, process=False, timeout=60) as device:
        device.set_timeout_millis(60_000)
        assert device.state() == DevState.ON
        run = device.Arm()
        wait_for("frames", lambda: device.frames > 50 and device.frame_number >= 50)
        assert device.state() == DevState.RUNNING
        values = dict(zip(device.scalar_names, device.scalars))
        assert values["sum"] > 0 and device.frame_number >= 50, values
        assert device.curve.shape == device.curve_axis.shape == (100,)
        wait_for("a decision", lambda: device.decision == "bright")
        device.Stop()
        wait_for("the end", lambda: device.state() == DevState.ON)
    print(f"tango: {run} armed, read and stopped")


def kafka(url):
    """librdkafka's brokers of its own, and the ESS's reader of its own schema."""
    import json
    import threading

    from confluent_kafka import Consumer, Producer
    from fluxline import Fluxline
    from fluxline.kafka import SideCar
    from streaming_data_types import deserialise_da00

    cluster = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 2})
    brokers = ",".join(f"{broker.host}:{broker.port}" for broker in cluster.list_topics(timeout=30).brokers.values())
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "test", "auto.offset.reset": "earliest"})
    for topic in ("flx", "flx_decisions"):
        cluster.list_topics(topic, timeout=30)
    consumer.subscribe(["flx", "flx_decisions"])

    with Fluxline(url) as fluxline:
        side_cars = [SideCar(fluxline, where, "flx", "BL7") for where in (brokers, "127.0.0.1:9")]
        threads = [threading.Thread(target=side_car.follow, daemon=True) for side_car in side_cars]
        for thread in threads:
            thread.start()
        run = fluxline.arm()
        results, decisions, until = [], [], time.monotonic() + 120
        while (len(results) < FRAMES or not decisions) and time.monotonic() < until:
            message = consumer.poll(0.5)
            if message is None or message.error():
                continue
            assert message.key() == run.id.encode()
            (results if message.topic() == "flx" else decisions).append(message.value())
        detail = run.wait(60)
        # The second one has no broker: the run knows nothing of it.
        assert detail.state == "complete" and detail.frames["complete"] == FRAMES, detail
        for side_car, thread in zip(side_cars, threads):
            side_car.end()
            thread.join(30)
            assert not thread.is_alive()
        consumer.close()

        arrays = [deserialise_da00(value) for value in results]
        values = [{variable.name: variable for variable in array.data} for array in arrays]
        assert [value["sequence"].data for value in values] == list(range(FRAMES)), "every result, in order, once"
        assert {value["run"].data for value in values} == {run.id} and {array.source_name for array in arrays} == {"BL7"}
        assert all(abs(array.timestamp_ns * 1e-9 - time.time()) < 300 for array in arrays)
        curve = run.profile(7)
        seventh = next(value for value in values if value["frame_number"].data == 7)
        assert seventh["intensity"].axes == [curve.axis_name] == seventh[curve.axis_name].axes
        assert np.array_equal(seventh["intensity"].data, curve.values, equal_nan=True)
        assert np.array_equal(seventh[curve.axis_name].data, curve.axis) and seventh[curve.axis_name].unit == curve.axis_unit
        counted = run.mask() == 0
        assert seventh["sum"].data == run.frame(7)[counted].sum(dtype=np.float64)
        (decision,) = map(json.loads, decisions)
        assert (decision["rule"], decision["frame_number"], decision["run"]) == ("bright", 40, run.id), decision
    print(f"kafka: {len(results)} results and a decision by the brokers; a side-car without a broker disturbs nobody")


if __name__ == "__main__":
    {"package": package, "bluesky": bluesky, "epics": epics, "tango": tango, "kafka": kafka}[sys.argv[1]](sys.argv[2])
