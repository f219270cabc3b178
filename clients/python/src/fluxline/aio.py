"""The client for programs with an event loop. :mod:`fluxline.client` is the same without ``await``."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from . import calls
from .calls import Call, T
from .model import ArmingParameter, Curve, Decision, Event, Parameter, Result, RunDetail, RunLine, Slice


class AsyncFluxline:
    """An appliance; see :class:`fluxline.Fluxline`."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0, verify: bool | str = True):
        self.url, self._token = url, token
        self._http = httpx.AsyncClient(base_url=calls.base(url), headers=calls.headers(token), timeout=timeout_s,
                                       verify=verify)

    async def __aenter__(self) -> AsyncFluxline:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _do(self, call: Call[T]) -> T:
        arguments, tries = call.arguments(), 1
        while True:
            try:
                return call.value(await self._http.request(**arguments))
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if not call.again(tries):
                    raise
                tries += 1

    async def status(self) -> dict[str, Any]:
        """State, counters, rates, ring, store and device, as ``openapi.json`` describes them."""
        return await self._do(calls.status())

    async def runs(self, query: str | None = None, limit: int | None = None, offset: int | None = None) -> list[RunLine]:
        """Runs in memory and in the store, newest first; ``query`` as ``docs/keep.md`` explains it."""
        return await self._do(calls.runs(query, limit, offset))

    def run(self, id: str) -> AsyncRun:
        """A run by its name."""
        return AsyncRun(self, id)

    async def arm(self, *, name: str | None = None, proposal: str | None = None, sample: str | None = None,
            recipe: str | None = None, technique: str | None = None, frames_expected: int | None = None,
            metadata: dict[str, str] | None = None, key: str | None = None) -> AsyncRun:
        """Arms a run; when this returns, its sources are ready.

        ``key`` is any text that a program which may be started again keeps for this call: sent again within the hour, the call
        arms nothing and answers the same run. Without it every call arms a run of its own.
        """
        call = calls.arm(name=name, proposal=proposal, sample=sample, recipe=recipe, technique=technique,
                         frames_expected=frames_expected, metadata=metadata, key=key)
        return AsyncRun(self, await self._do(call))

    async def parameters(self) -> list[Parameter]:
        """What may change while the run records."""
        return await self._do(calls.parameters())

    async def arming(self) -> list[ArmingParameter]:
        """What :meth:`arm` takes: type, limits, default, present value, and the states in which it is allowed."""
        return await self._do(calls.arming())

    async def set_parameter(self, name: str, value: float) -> Any:
        """Changes a parameter; it holds from the next batch of frames on."""
        return await self._do(calls.set_parameter(name, value))

    async def rules(self) -> Any:
        """The rules in force."""
        return await self._do(calls.rules())


class AsyncRun:
    """A run of an appliance, in memory or stored."""

    def __init__(self, client: AsyncFluxline, id: str):
        self._client, self.id = client, id

    def __repr__(self) -> str:
        return f"AsyncRun({self.id!r} at {self._client.url})"

    async def detail(self) -> RunDetail:
        """How it stands."""
        return await self._client._do(calls.detail(self.id))

    async def stop(self) -> Any:
        """Ends it early; everything so far is kept."""
        return await self._client._do(calls.end(self.id, "stop"))

    async def abort(self) -> Any:
        """Ends it now and marks it as aborted."""
        return await self._client._do(calls.end(self.id, "abort"))

    async def profile(self, which: int | str = "latest") -> Curve:
        """The curve of a frame, of the newest result (``latest``), or the running one (``sum``)."""
        return await self._client._do(calls.profile(self.id, which))

    async def frame(self, which: int | str = "latest", max_pixels: int | None = None) -> NDArray[Any]:
        """A frame, rows by columns, in its own pixel type; binned to at most ``max_pixels`` pixels."""
        return await self._client._do(calls.frame(self.id, which, max_pixels))

    async def mask(self) -> NDArray[np.uint32]:
        """NXmx bits, rows by columns."""
        return await self._client._do(calls.mask(self.id))

    async def slices(self) -> list[Slice]:
        """The tomographic slices that there are."""
        return await self._client._do(calls.slices(self.id))

    async def slice(self, name: str) -> NDArray[np.float32]:
        """A slice, rows by columns."""
        return await self._client._do(calls.slice_array(self.id, name))

    async def ledger(self, state: str | None = None, first: int | None = None,
               limit: int | None = None) -> list[dict[str, Any]]:
        """What became of every frame, page by page."""
        return await self._client._do(calls.ledger(self.id, state, first, limit))

    async def decisions(self) -> list[Decision]:
        """What the rules have decided."""
        return await self._client._do(calls.decisions(self.id))

    async def acknowledge(self, decision: Decision, by: str) -> Any:
        """Takes note of a decision."""
        return await self._client._do(calls.acknowledge(self.id, decision.sequence, by))

    async def tell(self, frame_numbers: list[int], values: dict[str, list[Any]],
             units: dict[str, str] | None = None, last: bool = False) -> Any:
        """Values by frame number (motors, I0, angle_deg), before, with or after their frames."""
        body = {"frame_numbers": frame_numbers, "values": values, "units": units, "last": last or None}
        return await self._client._do(calls.frame_metadata(self.id, body))

    async def reprocess(self, parameters: dict[str, dict[str, Any]] | None = None, name: str | None = None,
                  recipe: str | None = None, key: str | None = None) -> AsyncRun:
        """The stored run again with other parameters, as a new run; no detector is needed."""
        body = {"parameters": parameters, "name": name, "recipe": recipe}
        return AsyncRun(self._client, await self._client._do(calls.reprocess(self.id, body, key)))

    async def wait(self, timeout_s: float | None = None, every_s: float = 0.2) -> RunDetail:
        """Waits until its files are closed."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not (detail := await self.detail()).ended:
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"{self.id} is still {detail.state} after {timeout_s} s")
            await asyncio.sleep(every_s)
        return detail

    async def results(self, policy: str = "lossless", curves: bool = True, max_rate_hz: float | None = None,
                      deadline_ms: float | None = None, first: int | None = None) -> AsyncIterator[Result]:
        """Results as they come, until the run's end; see :meth:`fluxline.Run.results`."""
        tries = 0
        while True:
            wants = {"policy": policy, "curves": curves, "max_rate_hz": max_rate_hz, "deadline_ms": deadline_ms, "from": first}
            url = calls.results_url(self._client.url, self.id, wants)
            try:
                async with connect(url, additional_headers=calls.headers(self._client._token), max_size=None) as socket:
                    async for message in socket:
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

    async def events(self) -> AsyncIterator[Event]:
        """What happens to the run, from its beginning to its end."""
        reader = calls.EventReader()
        async with self._client._http.stream("GET", f"runs/{self.id}/events", timeout=None) as response:
            if response.is_error:
                await response.aread()
                raise calls.refused(response)
            async for line in response.aiter_lines():
                for event in reader.line(line):
                    yield event
