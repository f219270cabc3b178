"""Client of the Fluxline appliance.

>>> from fluxline import Fluxline
>>> with Fluxline("http://127.0.0.1:8080") as fluxline:
...     run = fluxline.arm(sample="CeO2")
...     for result in run.results():
...         print(result.frame_number, result.scalars["sum"])
...     print(run.wait().state)
"""

from .aio import AsyncFluxline, AsyncRun
from .client import Fluxline, Run
from .model import ArmingParameter, Curve, Decision, Event, FluxlineError, Parameter, Result, RunDetail, RunLine, Slice

__all__ = [
    "ArmingParameter", "AsyncFluxline", "AsyncRun", "Curve", "Decision", "Event", "Fluxline", "FluxlineError", "Parameter",
    "Result", "Run", "RunDetail", "RunLine", "Slice",
]
