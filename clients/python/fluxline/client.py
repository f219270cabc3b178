"""Requests and streams, one connection at a time, by the standard library alone."""

from __future__ import annotations

import http.client
import io
import json
import os
import ssl
from dataclasses import dataclass, field
from typing import Any, Iterator, Literal, Mapping
from urllib.parse import quote, urlencode, urlsplit

import numpy
from numpy.typing import NDArray

from .errors import FluxlineError, NotYet

Policy = Literal["lossless", "latest", "sampled"]
Json = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What one frame gave."""

    sequence: int
    """counts the results of the run from 0"""
    frame_number: int
    """number of the frame within the run"""
    kind: str
    """sample, flat, dark or invalid"""
    partial: bool
    """whether the frame lacked parts"""
    scalars: Mapping[str, float]
    curves: Mapping[str, NDArray[numpy.float32]]
    """empty unless asked for"""
    metadata: Mapping[str, Any]
    """values of the frame that had come by then"""
    angle_deg: float | None
    age_s: float
    """age of the frame when its result was ready"""
    sent_age_s: float
    """age of the frame when the message was sent"""
    late: bool
    """whether that was past the deadline that was asked for"""
    lost: int
    """results that this consumer lost just before this one, being slow"""
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def of(cls, message: Json) -> Result:
        """From the appliance's JSON."""
        curves = {
            name: numpy.array([numpy.nan if value is None else value for value in values], dtype=numpy.float32)
            for name, values in message["curves"].items()
        }
        return cls(
            sequence=message["sequence"],
            frame_number=message["frame_number"],
            kind=message["kind"],
            partial=message["partial"],
            scalars={name: numpy.nan if value is None else value for name, value in message["scalars"].items()},
            curves=curves,
            metadata=message.get("metadata", {}),
            angle_deg=message["angle_deg"],
            age_s=message["age_us"] / 1e6,
            sent_age_s=message["sent_age_us"] / 1e6,
            late=message.get("late", False),
            lost=message.get("lost", 0),
            raw=message,
        )


@dataclass(frozen=True)
class Profile:
    """A curve: of a frame, of the newest one, or the running one of all frames."""

    name: str
    axis: NDArray[numpy.float64]
    axis_name: str
    axis_unit: str
    values: NDArray[numpy.float32]
    errors: NDArray[numpy.float32] | None
    frames_used: int


class Client:
    """An appliance. The token comes from `FLUXLINE_TOKEN` where it is not given; where no tokens are in use none is needed."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0,
                 context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r}: http://HOST:PORT or https://HOST:PORT")
        self._host, self._port, self._secure = parts.hostname, parts.port, parts.scheme == "https"
        self._token = os.environ.get("FLUXLINE_TOKEN") if token is None else token
        self._timeout_s, self._context = timeout_s, context

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __repr__(self) -> str:
        return f"Client({'https' if self._secure else 'http'}://{self._host}:{self._port})"

    def _connect(self) -> http.client.HTTPConnection:
        if self._secure:
            context = self._context or ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _headers(self) -> dict[str, str]:
        return {} if self._token is None else {"Authorization": f"Bearer {self._token}"}

    def _open(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {},
              ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._connect()
        try:
            connection.request(method, f"/api/v1{path}", body=body, headers={**self._headers(), **headers})
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _error(answer.status, answer.read())
            return connection, answer
        except BaseException:
            connection.close()
            raise

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """Any call: `path` below `/api/v1`, `body` as JSON; the answer's bytes."""
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection, answer = self._open(method, path, content, headers)
        try:
            return answer.read()
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: Any = None) -> Json:
        answer: Json = json.loads(self.request(method, path, body))
        return answer

    def session(self) -> Json:
        """Who asks, and their role."""
        return self._json("GET", "/session")

    def status(self) -> Json:
        """What the appliance does."""
        return self._json("GET", "/status")

    def runs(self, query: str = "", limit: int = 100) -> list[Json]:
        """Runs that the query finds, newest first."""
        found: list[Json] = self._json("GET", f"/runs?{urlencode({'query': query, 'limit': limit})}")["runs"]
        return found

    def run(self, run: str = "current") -> Json:
        """A run: state, counts, record, and its summary once it has ended."""
        return self._json("GET", f"/runs/{quote(run, safe='')}")

    def arm(self, **request: Any) -> Json:
        """Arms a run (name, sample, proposal, recipe, technique, frames_expected, metadata); returns when its source is ready."""
        return self._json("POST", "/runs", request)

    def stop(self, run: str = "current") -> Json:
        """Ends a run early and keeps everything."""
        return self._json("POST", f"/runs/{quote(run, safe='')}/stop")

    def parameters(self) -> list[Json]:
        """What may change while the run records."""
        listed: list[Json] = self._json("GET", "/parameters")["parameters"]
        return listed

    def set_parameter(self, name: str, value: float) -> None:
        """Changes a parameter; it holds from the next batch of frames on."""
        self._json("PUT", f"/parameters/{quote(name, safe='')}", {"value": value})

    def decisions(self, run: str = "current") -> list[Json]:
        """What the rules have decided in a run."""
        listed: list[Json] = self._json("GET", f"/runs/{quote(run, safe='')}/decisions")["decisions"]
        return listed

    def frame(self, run: str = "current", which: int | str = "latest") -> NDArray[Any]:
        """A frame's pixels, `[row, column]`: by number, or the newest."""
        return _array(self.request("GET", f"/runs/{quote(run, safe='')}/frames/{which}.npy"))

    def slice(self, name: str, run: str = "current") -> NDArray[Any]:
        """A reconstructed slice, `[row, column]`."""
        return _array(self.request("GET", f"/runs/{quote(run, safe='')}/slices/{quote(name, safe='')}.npy"))

    def profile(self, run: str = "current", which: int | Literal["latest", "sum"] = "sum") -> Profile:
        """The curve of a frame, of the newest result, or of all frames."""
        found = self._json("GET", f"/runs/{quote(run, safe='')}/profiles/{which}")
        errors = found["errors"]
        return Profile(
            name=found["name"],
            axis=numpy.array(found["axis"]["values"], dtype=numpy.float64),
            axis_name=found["axis"]["name"],
            axis_unit=found["axis"]["unit"],
            values=numpy.array(found["values"], dtype=numpy.float32),
            errors=None if errors is None else numpy.array(errors, dtype=numpy.float32),
            frames_used=found["frames_used"],
        )

    def results(self, run: str = "current", policy: Policy = "lossless", *, from_sequence: int | None = None,
                max_rate_hz: float | None = None, deadline_s: float | None = None, curves: bool = False) -> Iterator[Result]:
        """Results as they come, until the run ends. A connection that breaks is made again, once per break: a lossless one goes on
        where it was."""
        asked: dict[str, Any] = {"policy": policy, "curves": str(curves).lower()}
        if from_sequence is not None:
            asked["from"] = from_sequence
        if max_rate_hz is not None:
            asked["max_rate_hz"] = max_rate_hz
        if deadline_s is not None:
            asked["deadline_ms"] = 1000 * deadline_s
        for name, data in self._events(f"/runs/{quote(run, safe='')}/results?{urlencode(asked)}"):
            if name == "result":
                yield Result.of(json.loads(data))

    def events(self, run: str = "current") -> Iterator[Json]:
        """What happens to a run, from its beginning to its end: armed, first_frame, decision, end and others."""
        for _, data in self._events(f"/runs/{quote(run, safe='')}/events"):
            yield json.loads(data)

    def _events(self, path: str) -> Iterator[tuple[str, str]]:
        last: str | None = None
        broken = False
        while True:
            resume = {} if last is None else {"Last-Event-ID": last}
            connection, answer = self._open("GET", path, headers=resume)
            try:
                for number, name, data in _parse(answer):
                    last, broken = number or last, False
                    yield name, data
                    if name == "end":
                        return
            except (OSError, http.client.HTTPException):
                if broken:
                    raise
            finally:
                connection.close()
            if broken or last is None:
                raise FluxlineError(0, "broken", "the stream ended before its run did")
            broken = True


def _parse(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str, str]]:
    """Number, name and data of server-sent events."""
    number, name, data = "", "message", list[str]()
    for raw in iter(answer.readline, b""):
        line = raw.decode().rstrip("\r\n")
        if line == "":
            if data:
                yield number, name, "\n".join(data)
            name, data = "message", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "id":
            number = value
        elif key == "event":
            name = value
        elif key == "data":
            data.append(value)


def _array(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = numpy.load(io.BytesIO(content), allow_pickle=False)
    return array


def _error(status: int, content: bytes) -> FluxlineError:
    try:
        body = json.loads(content)
        kind = NotYet if status == 425 else FluxlineError
        return kind(status, body["error"], body["message"], tuple(body["allowed_states"]))
    except (ValueError, KeyError, TypeError):
        return FluxlineError(status, "http", content.decode(errors="replace")[:200])
