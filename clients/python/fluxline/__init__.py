"""Client of a Fluxline appliance.

    from fluxline import Client

    with Client("http://beamline-fluxline", token="fluxline_…") as fluxline:
        run = fluxline.arm(name="scan_0001", sample="LaB6")
        for result in fluxline.results(run["id"], policy="lossless"):
            print(result.frame_number, result.scalars["sum"])
"""

from .client import Client, Policy, Profile, Result
from .errors import FluxlineError, NotYet
from .aio import AsyncClient

__all__ = ["AsyncClient", "Client", "FluxlineError", "NotYet", "Policy", "Profile", "Result"]
