"""The client for scripts and notebooks. :mod:`fluxline.aio` is the same with ``await``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.sync.client import connect

from . import calls
from .calls import Call, T
from .model import ArmingParameter, Curve, Decision, Event, Parameter, Result, RunDetail, RunLine, Slice


class Fluxline:
    """An appliance.

    ``url`` is its address, ``token`` what an operator was given; ``verify`` is False or a file with the certificate of
    the authority where the appliance's own is not from a known one.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0, verify: bool | str = True):
        self.url, self._token = url, token
        self._http = httpx.Client(base_url=calls.base(url), headers=calls.headers(token), timeout=timeout_s, verify=verify)

    def __enter__(self) -> Fluxline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _do(self, call: Call[T]) -> T:
        arguments, tries = call.arguments(), 1
        while True:
            try:
                return call.value(self._http.request(**arguments))
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if not call.again(tries):
                    raise
                tries += 1

    def status(self) -> dict[str, Any]:
        """State, counters, rates, ring, store and device, as ``openapi.json`` describes them."""
        return self._do(calls.status())

    def runs(self, query: str | None = None, limit: int | None = None, offset: int | None = None) -> list[RunLine]:
        """Runs in memory and in the store, newest first; ``query`` as ``docs/keep.md`` explains it."""
        return self._do(calls.runs(query, limit, offset))

    def run(self, id: str) -> Run:
        """A run by its name."""
        return Run(self, id)

    def arm(self, *, name: str | None = None, proposal: str | None = None, sample: str | None = None,
            recipe: str | None = None, technique: str | None = None, frames_expected: int | None = None,
            metadata: dict[str, str] | None = None, key: str | None = None) -> Run:
        """Arms a run; when this returns, its sources are ready.

        ``key`` is any text that a program which may be started again keeps for this call: sent again within the hour, the call
        arms nothing and answers the same run. Without it every call arms a run of its own.
        """
        call = calls.arm(name=name, proposal=proposal, sample=sample, recipe=recipe, technique=technique,
                         frames_expected=frames_expected, metadata=metadata, key=key)
        return Run(self, self._do(call))

    def parameters(self) -> list[Parameter]:
        """What may change while the run records."""
        return self._do(calls.parameters())

    def arming(self) -> list[ArmingParameter]:
        """What :meth:`arm` takes: type, limits, default, present value, and the states in which it is allowed."""
        return self._do(calls.arming())

    def set_parameter(self, name: str, value: float) -> Any:
        """Changes a parameter; it holds from the next batch of frames on."""
        return self._do(calls.set_parameter(name, value))

    def rules(self) -> Any:
        """The rules in force."""
        return self._do(calls.rules())


class Run:
    """A run of an appliance, in memory or stored."""

    def __init__(self, client: Fluxline, id: str):
        self._client, self.id = client, id

    def __repr__(self) -> str:
        return f"Run({self.id!r} at {self._client.url})"

    def detail(self) -> RunDetail:
        """How it stands."""
        return self._client._do(calls.detail(self.id))

    def stop(self) -> Any:
        """Ends it early; everything so far is kept."""
        return self._client._do(calls.end(self.id, "stop"))

    def abort(self) -> Any:
        """Ends it now and marks it as aborted."""
        return self._client._do(calls.end(self.id, "abort"))

    def profile(self, which: int | str = "latest") -> Curve:
        """The curve of a frame, of the newest result (``latest``), or the running one (``sum``)."""
        return self._client._do(calls.profile(self.id, which))

    def frame(self, which: int | str = "latest", max_pixels: int | None = None) -> NDArray[Any]:
        """A frame, rows by columns, in its own pixel type; binned to at most ``max_pixels`` pixels."""
        return self._client._do(calls.frame(self.id, which, max_pixels))

    def mask(self) -> NDArray[np.uint32]:
        """NXmx bits, rows by columns."""
        return self._client._do(calls.mask(self.id))

    def slices(self) -> list[Slice]:
        """The tomographic slices that there are."""
        return self._client._do(calls.slices(self.id))

    def slice(self, name: str) -> NDArray[np.float32]:
        """A slice, rows by columns."""
        return self._client._do(calls.slice_array(self.id, name))

    def ledger(self, state: str | None = None, first: int | None = None,
               limit: int | None = None) -> list[dict[str, Any]]:
        """What became of every frame, page by page."""
        return self._client._do(calls.ledger(self.id, state, first, limit))

    def decisions(self) -> list[Decision]:
        """What the rules have decided."""
        return self._client._do(calls.decisions(self.id))

    def acknowledge(self, decision: Decision, by: str) -> Any:
        """Takes note of a decision."""
        return self._client._do(calls.acknowledge(self.id, decision.sequence, by))

    def tell(self, frame_numbers: list[int], values: dict[str, list[Any]],
             units: dict[str, str] | None = None, last: bool = False) -> Any:
        """Values by frame number (motors, I0, angle_deg), before, with or after their frames."""
        body = {"frame_numbers": frame_numbers, "values": values, "units": units, "last": last or None}
        return self._client._do(calls.frame_metadata(self.id, body))

    def reprocess(self, parameters: dict[str, dict[str, Any]] | None = None, name: str | None = None,
                  recipe: str | None = None, key: str | None = None) -> Run:
        """The stored run again with other parameters, as a new run; no detector is needed."""
        body = {"parameters": parameters, "name": name, "recipe": recipe}
        return Run(self._client, self._client._do(calls.reprocess(self.id, body, key)))

    def wait(self, timeout_s: float | None = None, progress: bool = False, every_s: float = 0.2) -> RunDetail:
        """Waits until its files are closed; ``progress`` shows a bar (tqdm)."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        bar = calls.progress_bar(self.id) if progress else None
        try:
            while True:
                detail = self.detail()
                if bar is not None:
                    calls.show_progress(bar, detail)
                if detail.ended:
                    return detail
                if until is not None and time.monotonic() > until:
                    raise TimeoutError(f"{self.id} is still {detail.state} after {timeout_s} s")
                time.sleep(every_s)
        finally:
            if bar is not None:
                bar.close()

    def results(self, policy: str = "lossless", curves: bool = True, max_rate_hz: float | None = None,
                deadline_ms: float | None = None, first: int | None = None) -> Iterator[Result]:
        """Results as they come, until the run's end. A broken connection is made again where it was, twice in a row at most.

        ``lossless``: every result; ``latest``: the newest one whenever the last was taken; ``sampled``: at ``max_rate_hz``.
        ``first`` is the sequence number to begin with, ``deadline_ms`` the age from which on a result is ``late``.
        """
        tries = 0
        while True:
            wants = {"policy": policy, "curves": curves, "max_rate_hz": max_rate_hz, "deadline_ms": deadline_ms, "from": first}
            url = calls.results_url(self._client.url, self.id, wants)
            try:
                with connect(url, additional_headers=calls.headers(self._client._token), max_size=None) as socket:
                    for message in socket:
                        result = Result.of(json.loads(message))
                        tries, first = 0, result.sequence + 1 if policy == "lossless" else None
                        yield result
                return
            except ConnectionClosedOK:
                return
            except ConnectionClosedError:
                tries += 1
                if tries > 2:
                    raise

    def events(self) -> Iterator[Event]:
        """What happens to the run, from its beginning to its end."""
        reader = calls.EventReader()
        with self._client._http.stream("GET", f"runs/{self.id}/events", timeout=None) as response:
            if response.is_error:
                response.read()
                raise calls.refused(response)
            for line in response.iter_lines():
                yield from reader.line(line)
