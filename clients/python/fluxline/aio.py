"""The same for `asyncio`: every call on a thread of its own, so that the event loop never waits."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, AsyncIterator, Callable, Iterator, Literal, TypeVar

from numpy.typing import NDArray

from .client import Client, Json, Policy, Profile, Result

T = TypeVar("T")


class AsyncClient:
    """An appliance, asked without blocking. See `Client` for what each call does."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0,
                 context: ssl.SSLContext | None = None) -> None:
        self._client = Client(url, token, timeout_s, context)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def session(self) -> Json:
        return await asyncio.to_thread(self._client.session)

    async def status(self) -> Json:
        return await asyncio.to_thread(self._client.status)

    async def run(self, run: str = "current") -> Json:
        return await asyncio.to_thread(self._client.run, run)

    async def arm(self, **request: Any) -> Json:
        return await asyncio.to_thread(lambda: self._client.arm(**request))

    async def stop(self, run: str = "current") -> Json:
        return await asyncio.to_thread(self._client.stop, run)

    async def set_parameter(self, name: str, value: float) -> None:
        await asyncio.to_thread(self._client.set_parameter, name, value)

    async def frame(self, run: str = "current", which: int | str = "latest") -> NDArray[Any]:
        return await asyncio.to_thread(self._client.frame, run, which)

    async def profile(self, run: str = "current", which: int | Literal["latest", "sum"] = "sum") -> Profile:
        return await asyncio.to_thread(self._client.profile, run, which)

    def results(self, run: str = "current", policy: Policy = "lossless", **options: Any) -> AsyncIterator[Result]:
        return _pull(lambda: self._client.results(run, policy, **options))

    def events(self, run: str = "current") -> AsyncIterator[Json]:
        return _pull(lambda: self._client.events(run))


async def _pull(start: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """One item at a time: the thread reads the next one when it is wanted, so that a slow consumer is seen as one."""
    iterator = await asyncio.to_thread(start)
    missing = object()
    while True:
        item: Any = await asyncio.to_thread(next, iterator, missing)
        if item is missing:
            return
        yield item
