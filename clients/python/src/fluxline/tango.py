"""A Tango device server: ``python -m fluxline.tango INSTANCE``; the property ``url`` is the appliance's address.

Commands ``Arm``, ``Stop`` and ``Abort``; attributes ``frames``, ``frame_number``, ``scalar_names``, ``scalars``, ``curve``,
``curve_axis`` and ``decision``. The state is ON while idle, RUNNING while a run records, FAULT after a failed one.
"""

from __future__ import annotations

from typing import Any

from tango import DevState
from tango.server import Device, attribute, command, device_property

from .client import Fluxline, Run
from .model import FluxlineError, Result

STATES = {"idle": DevState.ON, "armed": DevState.STANDBY, "recording": DevState.RUNNING, "finishing": DevState.RUNNING,
          "error": DevState.FAULT}


class FluxlineDevice(Device):
    """One appliance."""

    url = device_property(dtype=str, mandatory=True)
    token_file = device_property(dtype=str, default_value="")

    def init_device(self) -> None:
        super().init_device()
        token = open(self.token_file, encoding="utf-8").read().strip() if self.token_file else None
        self._fluxline = Fluxline(self.url, token)
        self._id = ""

    def delete_device(self) -> None:
        self._fluxline.close()

    def dev_state(self) -> DevState:
        try:
            return STATES[self._fluxline.status()["state"]]
        except OSError:
            return DevState.UNKNOWN

    def _run(self) -> Run:
        run = self._fluxline.status()["run"]
        if run:
            self._id = run["id"]
        if not self._id:
            raise FluxlineError(404, "not_found", "no run has been armed yet: call Arm")
        return self._fluxline.run(self._id)

    def _newest(self) -> Result:
        return next(self._run().results("latest", curves=False))

    @command(dtype_out=str, doc_out="name of the run")
    def Arm(self) -> str:
        self._id = self._fluxline.arm().id
        return self._id

    @command
    def Stop(self) -> None:
        self._run().stop()

    @command
    def Abort(self) -> None:
        self._run().abort()

    @attribute(dtype=int, doc="complete frames of the run")
    def frames(self) -> int:
        return self._run().detail().frames["complete"]

    @attribute(dtype=int, doc="number of the newest frame with a result")
    def frame_number(self) -> int:
        return self._newest().frame_number

    @attribute(dtype=[str], max_dim_x=64)
    def scalar_names(self) -> list[str]:
        return sorted(self._newest().scalars)

    @attribute(dtype=[float], max_dim_x=64, doc="of the newest frame, in the order of scalar_names")
    def scalars(self) -> list[float]:
        return [value for _, value in sorted(self._newest().scalars.items())]

    @attribute(dtype=[float], max_dim_x=65536, doc="running mean of the curve")
    def curve(self) -> Any:
        return self._run().profile("sum").values

    @attribute(dtype=[float], max_dim_x=65536, doc="centres of the curve's bins")
    def curve_axis(self) -> Any:
        return self._run().profile("sum").axis

    @attribute(dtype=str, doc="rule that fired last, or empty")
    def decision(self) -> str:
        decisions = self._run().decisions()
        return decisions[-1].rule if decisions else ""


if __name__ == "__main__":
    FluxlineDevice.run_server()
