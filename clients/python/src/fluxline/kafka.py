"""A Kafka side-car: ``python -m fluxline.kafka http://127.0.0.1:8080 --brokers kafka:9092 --topic BL7_fluxline``

Every result of every run goes to the topic as a ``da00`` message (the ESS's schema of arrays with names, units and axes), every
decision to ``TOPIC_decisions`` as JSON; the key is the run's name. A broker that is away holds up nothing but this program.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from streaming_data_types.dataarray_da00 import Variable, serialise_da00

from .client import Fluxline, Run
from .model import Curve, Result

#: Nothing is given up: a message waits until a broker has it, in its order and once.
RELIABLE = {"acks": "all", "enable.idempotence": True, "message.timeout.ms": 0, "linger.ms": 5, "compression.type": "lz4",
            "queue.buffering.max.messages": 10_000}


def message(source: str, run: str, result: Result, axes: dict[str, Curve], now_ns: int) -> bytes:
    """``result`` as ``da00``: curves over their axis, scalars without one; the time is the frame's arrival, ns since 1970."""

    def curves() -> Iterator[Variable]:
        for name, values in result.curves.items():
            if name in axes:
                axis = axes[name]
                yield Variable(name, values, axes=[axis.axis_name])
                yield Variable(axis.axis_name, axis.axis, axes=[axis.axis_name], unit=axis.axis_unit)
            else:
                yield Variable(name, values, axes=["index"])

    about = [Variable("run", run), Variable("kind", result.kind), Variable("sequence", result.sequence),
             Variable("frame_number", result.frame_number), Variable("partial", int(result.partial))]
    if result.angle_deg is not None:
        about.append(Variable("rotation_angle", float(result.angle_deg), unit="deg"))
    numbers = [Variable(name, float(value)) for name, value in sorted(result.scalars.items())]
    # Several curves may lie over one axis, which is sent once.
    arrays = {variable.name: variable for variable in curves()}
    sent: bytes = serialise_da00(source, now_ns - round(result.age_s * 1e9), [*about, *numbers, *arrays.values()])
    return sent


class SideCar:
    """Follows the runs of one appliance; ``brokers`` and ``settings`` are librdkafka's."""

    def __init__(self, fluxline: Fluxline, brokers: str, topic: str, source: str = "fluxline",
                 settings: dict[str, Any] | None = None) -> None:
        self._fluxline, self._source = fluxline, source
        self._results, self._decisions = topic, f"{topic}_decisions"
        self._producer = Producer({"bootstrap.servers": brokers, **RELIABLE, **(settings or {})})
        self._ended = threading.Event()
        #: what a broker has of the run that is followed, by topic: the next one's sequence
        self._has: dict[str, int] = {}
        self._refused: KafkaException | None = None

    def end(self) -> None:
        self._ended.set()

    def follow(self) -> None:
        """Until :meth:`end`: one run after the other. What breaks goes on behind what a broker has."""
        run, done = "", False
        while not self._ended.wait(0.1):
            try:
                newest = self._fluxline.status()["run"]
                if newest and newest["id"] != run:
                    run, done, self._has = newest["id"], False, {}
                if run and not done:
                    self._send_run(self._fluxline.run(run))
                    done = not self._ended.is_set()
            except Exception as error:  # noqa: BLE001: whatever it is, the next try may do
                print(f"fluxline.kafka: {run or self._fluxline.url}: {error}", flush=True)
                self._producer.purge()
                self._producer.flush(5.0)
                self._ended.wait(1.0)

    def _send_run(self, run: Run) -> None:
        self._refused = None
        axes: dict[str, Curve] = {}
        asked = 0.0
        for result in run.results(first=self._has.get(self._results, 0)):
            if result.lost:
                print(f"fluxline.kafka: {run.id}: {result.lost} results were lost before {result.sequence}", flush=True)
            if result.curves and not axes:
                curve = run.profile("latest")
                axes = {name: curve for name, values in result.curves.items() if len(values) == len(curve.axis)}
            value = message(self._source, run.id, result, axes, time.time_ns())
            self._send(self._results, run, result.sequence, value)
            if time.monotonic() > asked + 0.2:
                self._send_decisions(run)
                asked = time.monotonic()
            if self._ended.is_set():
                return
        self._send_decisions(run)
        while self._producer.flush(0.5) and not self._ended.is_set():
            pass
        if self._refused:
            raise self._refused

    def _send_decisions(self, run: Run) -> None:
        for decision in run.decisions():
            if decision.sequence >= self._has.get(self._decisions, 0):
                value = json.dumps({"run": run.id, **dataclasses.asdict(decision)}).encode()
                self._send(self._decisions, run, decision.sequence, value)

    def _send(self, topic: str, run: Run, sequence: int, value: bytes) -> None:
        def told(error: KafkaError | None, _: Message) -> None:
            if error:
                self._refused = KafkaException(error)
            else:
                self._has[topic] = sequence + 1

        while not self._ended.is_set():
            try:
                self._producer.produce(topic, value, key=run.id, on_delivery=told)
                break
            except BufferError:
                # The broker is away or slow: the appliance keeps the results meanwhile.
                self._producer.poll(0.2)
        self._producer.poll(0)
        if self._refused:
            raise self._refused


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("url")
    arguments.add_argument("--brokers", required=True, help="host:port, separated by commas")
    arguments.add_argument("--topic", default="fluxline")
    arguments.add_argument("--source", default="fluxline", help="source_name of the messages")
    arguments.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                           help="a setting of librdkafka, such as security.protocol=SSL")
    arguments.add_argument("--token", help="file that holds the appliance's token")
    given = arguments.parse_args()
    if wrong := [text for text in given.set if "=" not in text]:
        arguments.error(f"--set {wrong[0]}: NAME=VALUE is expected")
    token = open(given.token, encoding="utf-8").read().strip() if given.token else None
    with Fluxline(given.url, token) as fluxline:
        settings = dict(text.split("=", 1) for text in given.set)
        print(f"results of {given.url} go to {given.topic} at {given.brokers}", flush=True)
        SideCar(fluxline, given.brokers, given.topic, given.source, settings).follow()


if __name__ == "__main__":
    main()
