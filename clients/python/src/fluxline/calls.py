"""Each call of the interface once: what is sent, and what is made of the answer."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray

from .model import ArmingParameter, Curve, Decision, Event, FluxlineError, Parameter, RunDetail, RunLine, Slice

T = TypeVar("T")

#: how often a call is sent while connections break
TRIES = 3


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and the way from its answer to a value."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: dict[str, Any] | None = None
    body: Any = None
    #: text that is the same for every try of one call: the appliance does it once
    key: str | None = None

    def arguments(self) -> dict[str, Any]:
        sent = {"method": self.method, "url": self.path, "params": without_none(self.params or {}), "json": self.body}
        if self.method == "POST":
            sent["headers"] = {"Idempotency-Key": self.key or str(uuid.uuid4())}
        return sent

    def again(self, tries: int) -> bool:
        """Whether it may be sent again when no answer has come; POST is done once, however often it is sent."""
        return tries < TRIES and self.method in ("GET", "POST")

    def value(self, response: httpx.Response) -> T:
        if response.is_error:
            raise refused(response)
        return self.read(response)


def refused(response: httpx.Response) -> FluxlineError:
    try:
        said = response.json()
        return FluxlineError(response.status_code, said["error"], said["message"], said.get("allowed_states"))
    except (ValueError, KeyError, TypeError):
        return FluxlineError(response.status_code, "http", response.text or response.reason_phrase)


def base(url: str) -> str:
    """The interface's address, from the appliance's."""
    return url.rstrip("/") + "/api/v1/"


def headers(token: str | None) -> dict[str, str]:
    """What a token is sent with: never in an address."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def results_url(url: str, run: str, wants: dict[str, Any]) -> str:
    parts = urlsplit(base(url))
    scheme = "wss" if parts.scheme == "https" else "ws"
    given = {name: str(value).lower() if isinstance(value, bool) else value
             for name, value in wants.items() if value is not None}
    return f"{scheme}://{parts.netloc}{parts.path}runs/{quote(run)}/results?{urlencode(given)}"


class EventReader:
    """Server-sent events, line by line."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def line(self, line: str) -> Iterator[Event]:
        if line.startswith("data:"):
            self._data.append(line[5:].strip())
        elif not line and self._data:
            value = json.loads("\n".join(self._data))
            self._data = []
            yield Event.of(value)


def _array(response: httpx.Response) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(response.content), allow_pickle=False)
    return array


def _json(response: httpx.Response) -> Any:
    return response.json()


def status() -> Call[dict[str, Any]]:
    return Call("GET", "status", _json)


def runs(query: str | None, limit: int | None, offset: int | None) -> Call[list[RunLine]]:
    return Call("GET", "runs", lambda answer: [RunLine.of(run) for run in answer.json()["runs"]],
                {"query": query, "limit": limit, "offset": offset})


def arm(key: str | None = None, **asked: Any) -> Call[str]:
    return Call("POST", "runs", lambda answer: answer.json()["id"], body=without_none(asked), key=key)


def parameters() -> Call[list[Parameter]]:
    def read(answer: httpx.Response) -> list[Parameter]:
        return [Parameter.of(value) for value in answer.json()["parameters"]]

    return Call("GET", "parameters", read)


def arming() -> Call[list[ArmingParameter]]:
    def read(answer: httpx.Response) -> list[ArmingParameter]:
        return [ArmingParameter.of(value) for value in answer.json()["arming"]]

    return Call("GET", "parameters", read)


def set_parameter(name: str, value: Any) -> Call[Any]:
    return Call("PUT", f"parameters/{quote(name)}", _json, body={"value": value})


def rules() -> Call[Any]:
    return Call("GET", "rules", _json)


def detail(run: str) -> Call[RunDetail]:
    return Call("GET", f"runs/{quote(run)}", lambda answer: RunDetail.of(answer.json()))


def end(run: str, how: str) -> Call[Any]:
    return Call("POST", f"runs/{quote(run)}/{how}", _json, body={})


def profile(run: str, which: int | str) -> Call[Curve]:
    return Call("GET", f"runs/{quote(run)}/profiles/{which}", lambda answer: Curve.of(answer.json()))


def frame(run: str, which: int | str, max_pixels: int | None) -> Call[NDArray[Any]]:
    return Call("GET", f"runs/{quote(run)}/frames/{which}.npy", _array, {"max_pixels": max_pixels})


def mask(run: str) -> Call[NDArray[np.uint32]]:
    return Call("GET", f"runs/{quote(run)}/mask.npy", _array)


def slices(run: str) -> Call[list[Slice]]:
    return Call("GET", f"runs/{quote(run)}/slices",
                lambda answer: [Slice.of(value) for value in answer.json()["slices"]])


def slice_array(run: str, name: str) -> Call[NDArray[np.float32]]:
    return Call("GET", f"runs/{quote(run)}/slices/{quote(name)}.npy", _array)


def ledger(run: str, state: str | None, first: int | None, limit: int | None) -> Call[list[dict[str, Any]]]:
    return Call("GET", f"runs/{quote(run)}/ledger", lambda answer: answer.json()["entries"],
                {"state": state, "first": first, "limit": limit})


def decisions(run: str) -> Call[list[Decision]]:
    return Call("GET", f"runs/{quote(run)}/decisions",
                lambda answer: [Decision.of(value) for value in answer.json()["decisions"]])


def acknowledge(run: str, sequence: int, by: str) -> Call[Any]:
    return Call("POST", f"runs/{quote(run)}/decisions/{sequence}/acknowledge", _json, body={"by": by})


def frame_metadata(run: str, values: dict[str, Any]) -> Call[Any]:
    return Call("POST", f"runs/{quote(run)}/frame-metadata", _json, body=without_none(values))


def reprocess(run: str, asked: dict[str, Any], key: str | None = None) -> Call[str]:
    return Call("POST", f"runs/{quote(run)}/reprocess", lambda answer: answer.json()["id"], body=without_none(asked), key=key)


def without_none(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


def progress_bar(name: str) -> Any:
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install fluxline[progress]") from error
    return tqdm(desc=name, unit=" frames", total=0)


def show_progress(bar: Any, detail: RunDetail) -> None:
    frames = detail.frames
    bar.total = frames.get("expected") or None
    bar.n = sum(frames.get(state, 0) for state in ("complete", "partial", "corrupt"))
    bar.set_postfix_str(detail.state, refresh=False)
    bar.refresh()
