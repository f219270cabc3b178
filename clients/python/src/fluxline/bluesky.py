"""An ophyd-async detector: a Bluesky plan triggers it, reads numbers of the newest frames, and hears what the rules decided.

>>> detector = FluxlineDetector("http://127.0.0.1:8080", scalars=["sum", "max"], frames_per_point=10, name="fluxline")
>>> RE(bp.scan([detector], motor, 0, 1, 11))                # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from bluesky.protocols import Triggerable
from ophyd_async.core import AsyncStatus, StandardReadable, StandardReadableFormat, soft_signal_r_and_setter

from .aio import AsyncFluxline, AsyncRun
from .model import Result


class FluxlineDetector(StandardReadable, Triggerable):
    """Staging arms a run, each trigger waits for the next ``frames_per_point`` results, unstaging closes the run.

    ``scalars`` are names of the recipe's results; a point's value is their mean. ``decision`` is the name of the rule that
    fired last, or empty; ``file`` the master file of the run, once it is closed.
    """

    def __init__(self, url: str, *, token: str | None = None, scalars: list[str], frames_per_point: int = 1,
                 timeout_s: float = 60.0, arm: dict[str, Any] | None = None, name: str = "") -> None:
        self._url, self._token, self._arm = url, token, arm or {}
        self._frames, self._timeout_s = frames_per_point, timeout_s
        self._client: AsyncFluxline | None = None
        self._run: AsyncRun | None = None
        self._listening: asyncio.Task[None] | None = None
        self._results: asyncio.Queue[Result | None] = asyncio.Queue()
        self._set_scalar = {}
        with self.add_children_as_readables():
            for scalar in scalars:
                signal, self._set_scalar[scalar] = soft_signal_r_and_setter(float)
                setattr(self, scalar, signal)
            self.frame_number, self._set_frame_number = soft_signal_r_and_setter(int)
            self.decision, self._set_decision = soft_signal_r_and_setter(str)
        with self.add_children_as_readables(StandardReadableFormat.CONFIG_SIGNAL):
            self.run_id, self._set_run_id = soft_signal_r_and_setter(str)
        self.file, self._set_file = soft_signal_r_and_setter(str)
        super().__init__(name)

    @AsyncStatus.wrap
    async def stage(self) -> None:
        await super().stage()
        self._client = AsyncFluxline(self._url, self._token)
        self._run = await self._client.arm(**self._arm)
        self._results = asyncio.Queue()
        self._listening = asyncio.create_task(self._listen(self._run))
        self._set_run_id(self._run.id)
        self._set_decision("")

    async def _listen(self, run: AsyncRun) -> None:
        async for result in run.results(curves=False):
            self._results.put_nowait(result)
        self._results.put_nowait(None)

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        if self._run is None:
            raise RuntimeError(f"{self.name} is not staged: no run is armed")
        results: list[Result] = []
        async with asyncio.timeout(self._timeout_s):
            while len(results) < self._frames and (result := await self._results.get()) is not None:
                results.append(result)
        if not results:
            self._results.put_nowait(None)
            raise RuntimeError(f"{self._run.id} has ended: there is no frame for another point")
        for scalar, set_value in self._set_scalar.items():
            set_value(float(np.mean([result.scalars[scalar] for result in results])))
        self._set_frame_number(results[-1].frame_number)
        if decisions := await self._run.decisions():
            self._set_decision(decisions[-1].rule)

    @AsyncStatus.wrap
    async def unstage(self) -> None:
        await super().unstage()
        run, client = self._run, self._client
        self._run = self._client = None
        if run is not None and client is not None:
            if not (await run.detail()).ended:
                await run.stop()
            self._set_file(next(iter((await run.wait(self._timeout_s)).files), ""))
            await client.close()
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
