"""What the appliance says, as Python values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: States in which a run is over.
ENDED = ("complete", "stopped", "aborted", "failed", "interrupted")


class FluxlineError(Exception):
    """A request that the appliance refused: what it said, and the states in which the call is allowed."""

    def __init__(self, status: int, code: str, message: str, allowed_states: list[str] | None = None):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.allowed_states = allowed_states or []


@dataclass(frozen=True)
class Result:
    """The result of one frame."""

    #: counts results of the run from 0
    sequence: int
    #: number of the frame within the run
    frame_number: int
    #: sample, flat, dark or invalid
    kind: str
    #: whether the frame lacked parts
    partial: bool
    #: rotation angle, degrees
    angle_deg: float | None
    #: age of the frame when its result was ready, seconds
    age_s: float
    #: numbers by name
    scalars: dict[str, float]
    #: curves by name, float32, one value a bin; the bins are those of :meth:`Run.profile`
    curves: dict[str, NDArray[np.float32]]
    #: values of the frame that had come by then (motors, I0)
    metadata: dict[str, Any] = field(default_factory=dict)
    #: whether it came behind the deadline that was asked for
    late: bool = False
    #: results that this consumer lost just before this one
    lost: int = 0

    @classmethod
    def of(cls, value: dict[str, Any]) -> Result:
        curves = {name: np.asarray(curve, np.float32) for name, curve in value.get("curves", {}).items()}
        return cls(value["sequence"], value["frame_number"], value["kind"], value["partial"], value.get("angle_deg"),
                   value["age_us"] * 1e-6, value["scalars"], curves, value.get("metadata", {}), bool(value.get("late")),
                   value.get("lost") or 0)


@dataclass(frozen=True)
class Curve:
    """An azimuthally integrated curve."""

    name: str
    #: q, 2theta, r or d
    axis_name: str
    axis_unit: str
    #: centres of the bins
    axis: NDArray[np.float64]
    values: NDArray[np.float32]
    #: standard errors; none where the recipe makes none
    errors: NDArray[np.float32] | None
    #: None for the running sum
    frame_number: int | None
    #: frames that it rests on
    frames_used: int

    @classmethod
    def of(cls, value: dict[str, Any]) -> Curve:
        errors, axis = value.get("errors"), value["axis"]
        return cls(value["name"], axis["name"], axis["unit"], np.asarray(axis["values"], np.float64),
                   np.asarray(value["values"], np.float32), None if errors is None else np.asarray(errors, np.float32),
                   value.get("frame_number"), value["frames_used"])


@dataclass(frozen=True)
class Decision:
    """A rule has fired."""

    sequence: int
    rule: str
    #: its condition
    when: str
    action: Any
    #: first frame for which the condition held without a break, and the frame that decided
    frame_first: int
    frame_number: int
    #: values that the condition was asked with
    evidence: dict[str, float]
    #: share of the frames up to the deciding one that have a result
    share: float
    #: from the arrival of the deciding frame to the decision, seconds
    age_s: float
    time: str
    acknowledged: dict[str, Any] | None = None

    @classmethod
    def of(cls, value: dict[str, Any]) -> Decision:
        return cls(value["sequence"], value["rule"], value["when"], value["action"], value["frame_first"],
                   value["frame_number"], value["evidence"], value["share"], value["age_us"] * 1e-6, value["time"],
                   value.get("acknowledged"))


@dataclass(frozen=True)
class Event:
    """An event in the life of a run: armed, first_frame, progress, decision, file_closed, degraded, end."""

    sequence: int
    event: str
    time: str
    data: dict[str, Any]

    @classmethod
    def of(cls, value: dict[str, Any]) -> Event:
        return cls(value["sequence"], value["event"], value["time"], value["data"])


@dataclass(frozen=True)
class Parameter:
    """Something that may change while a run records."""

    #: ``operation.key``, as in the recipe
    name: str
    value: float
    unit: str
    minimum: float
    maximum: float
    #: states of the run in which it may change
    states: list[str]
    description: str
    #: read_write
    access: str
    #: the call that sets it
    call: str

    @classmethod
    def of(cls, value: dict[str, Any]) -> Parameter:
        return cls(**{name: value[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class ArmingParameter:
    """Something that :meth:`Fluxline.arm` takes."""

    name: str
    #: string, integer or map
    type: str
    unit: str
    #: smallest and largest value of a number; None where there is no such limit
    minimum: int | None
    maximum: int | None
    #: regular expression of a text
    pattern: str | None
    #: the only values there are, where there are no others
    choices: list[str] | None
    #: what it is where it is not given
    default: Any
    #: of the run in memory
    value: Any
    #: read_write
    access: str
    #: the call that sets it
    call: str
    #: states of the appliance in which that call is allowed
    states: list[str]
    description: str

    @classmethod
    def of(cls, value: dict[str, Any]) -> ArmingParameter:
        return cls(**{name: value[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Slice:
    """A tomographic slice and what it rests on."""

    name: str
    #: rows and columns
    shape: tuple[int, int]
    unit: str
    frames_used: int
    frames_expected: int

    @classmethod
    def of(cls, value: dict[str, Any]) -> Slice:
        rows, columns = value["shape"]
        return cls(value["name"], (rows, columns), value["unit"], value["frames_used"], value["frames_expected"])


@dataclass(frozen=True)
class RunLine:
    """A line of the list of runs."""

    id: str
    technique: str
    sample: str
    proposal: str
    state: str
    #: where its files stand: recording, closed, pushed, verified, safe_to_delete or deleted
    store_state: str
    started: str
    frames_complete: int
    frames_expected: int

    @classmethod
    def of(cls, value: dict[str, Any]) -> RunLine:
        return cls(**{name: value.get(name, 0 if name.startswith("frames") else "") for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class RunDetail:
    """A run and how it stands."""

    id: str
    state: str
    store_state: str
    #: the tracker's counts: expected, complete, partial, lost, corrupt …
    frames: dict[str, int]
    #: outcomes of analysis and storage
    outcomes: dict[str, int]
    #: paths of its files; empty until it is closed
    files: list[str]
    warnings: list[str]
    #: everything that the appliance says of it
    raw: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether it is closed."""
        return self.raw.get("summary") is not None or self.state in ENDED

    @classmethod
    def of(cls, value: dict[str, Any]) -> RunDetail:
        summary = value.get("summary") or {}
        return cls(value["id"], summary.get("state", value["state"]), value["store_state"], value["frames"],
                   value["outcomes"], summary.get("files", []), value["warnings"], value)
