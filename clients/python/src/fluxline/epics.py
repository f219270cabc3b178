"""An EPICS PVAccess side-car: ``python -m fluxline.epics http://127.0.0.1:8080 --prefix BL7:FLX:``

``Acquire`` (1 arms a run, 0 stops it), ``DetectorState_RBV``, ``NumCaptured``, ``ArrayCounter_RBV``, ``Result:NAME`` for each
scalar of the newest frame, ``Decision`` and ``Image`` (NTNDArray, binned to a million pixels, once a second).
"""

from __future__ import annotations

import argparse
import threading
from typing import Any

from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV

from .client import Fluxline, Run
from .model import FluxlineError


class SideCar:
    """The PVs of one appliance; an isolated one is seen on this machine's loopback only."""

    def __init__(self, fluxline: Fluxline, prefix: str, image_s: float = 1.0, isolate: bool = False) -> None:
        self._fluxline, self._prefix, self._image_s, self._isolate = fluxline, prefix, image_s, isolate
        self._ended = threading.Event()
        self._provider = StaticProvider("fluxline")
        self._pvs: dict[str, SharedPV] = {}
        self._post("DetectorState_RBV", "s", "")
        self._post("Decision", "s", "")
        self._post("NumCaptured", "l", 0)
        self._post("ArrayCounter_RBV", "l", 0)
        self._image = SharedPV(nt=NTNDArray())
        self._provider.add(f"{prefix}Image", self._image)
        acquire = self._post("Acquire", "i", 0)
        acquire.put(self._acquire)

    def _post(self, name: str, kind: str, value: Any) -> SharedPV:
        if name not in self._pvs:
            self._pvs[name] = SharedPV(nt=NTScalar(kind), initial=value)
            self._provider.add(f"{self._prefix}{name}", self._pvs[name])
        else:
            self._pvs[name].post(value)
        return self._pvs[name]

    def _acquire(self, pv: SharedPV, operation: Any) -> None:
        try:
            if int(operation.value()):
                self._fluxline.arm()
            elif run := self._running():
                run.stop()
            pv.post(operation.value())
            operation.done()
        except FluxlineError as error:
            operation.done(error=error.message)

    def _running(self) -> Run | None:
        run = self._fluxline.status()["run"]
        return self._fluxline.run(run["id"]) if run else None

    def _watch_state(self) -> None:
        while not self._ended.wait(0.2):
            status = self._fluxline.status()
            self._post("DetectorState_RBV", "s", status["state"])
            self._post("NumCaptured", "l", status["storage"]["synced"])
            if status["state"] in ("idle", "error"):
                self._post("Acquire", "i", 0)

    def _watch_results(self) -> None:
        while not self._ended.wait(0.1):
            run = self._running()
            if run is None:
                continue
            for result in run.results("sampled", curves=False, max_rate_hz=10.0):
                self._post("ArrayCounter_RBV", "l", result.frame_number + 1)
                for name, value in result.scalars.items():
                    self._post(f"Result:{name}", "d", value)
                if decisions := run.decisions():
                    self._post("Decision", "s", decisions[-1].rule)
                if self._ended.is_set():
                    return

    def _watch_frames(self) -> None:
        while not self._ended.wait(self._image_s):
            run = self._running()
            if run is not None:
                frame = run.frame("latest", max_pixels=1 << 20)
                (self._image.post if self._image.isOpen() else self._image.open)(frame)

    def _again(self, watch: Any) -> None:
        # An appliance that restarts, or a run without a frame yet, is asked again.
        while not self._ended.is_set():
            try:
                watch()
            except Exception as error:  # noqa: BLE001: whatever it is, the next try may do
                print(f"fluxline.epics: {error}", flush=True)
                self._ended.wait(1.0)

    def __enter__(self) -> SideCar:
        self._server = Server(providers=[self._provider], isolate=self._isolate)
        for watch in (self._watch_state, self._watch_results, self._watch_frames):
            threading.Thread(target=self._again, args=(watch,), daemon=True).start()
        return self

    def conf(self) -> dict[str, str]:
        """How a client finds an isolated one."""
        found: dict[str, str] = self._server.conf()
        return found

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.stop()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("url")
    arguments.add_argument("--prefix", default="FLX:")
    arguments.add_argument("--token", help="file that holds the token")
    given = arguments.parse_args()
    token = open(given.token, encoding="utf-8").read().strip() if given.token else None
    with Fluxline(given.url, token) as fluxline, SideCar(fluxline, given.prefix):
        print(f"serving {given.prefix}* for {given.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
