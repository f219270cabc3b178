"""The Python client against an appliance: client.py URL OPERATOR VIEWER. The run has 200 frames of 200 by 200 pixels."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients/python"))

import numpy  # noqa: E402
from fluxline import AsyncClient, Client, FluxlineError  # noqa: E402

url, operator, viewer = sys.argv[1:]


def refused(status, call):
    try:
        call()
    except FluxlineError as error:
        assert error.status == status, error
        return error
    raise AssertionError(f"not refused with {status}")


refused(401, Client(url, token="").status)
looker = Client(url, token=viewer)
assert looker.session()["role"] == "viewer"
assert refused(403, lambda: looker.arm(name="live")).code == "role"
with Client(url, token=operator) as fluxline:
    run = fluxline.arm(name="live", sample="LaB6")
    assert run["state"] in ("armed", "recording"), run
    seen = list(fluxline.results("live", from_sequence=0, curves=True, deadline_s=60.0))
    assert [result.sequence for result in seen] == list(range(200)), len(seen)
    assert all(result.lost == 0 and not result.late and 0 < result.age_s <= result.sent_age_s for result in seen)
    assert all(result.curves["intensity"].shape == (50,) for result in seen)
    assert seen[0].curves["intensity"].dtype == numpy.float32 and numpy.isfinite(seen[0].scalars["sum"])
    assert fluxline.frame("live").shape == (200, 200)
    profile = fluxline.profile("live")
    assert profile.values.shape == profile.axis.shape == (50,) and profile.axis_name == "q"
    assert [event["event"] for event in fluxline.events("live")][-1] == "end"
    assert refused(409, lambda: fluxline.stop("live")).allowed_states


async def again():
    async with AsyncClient(url, token=viewer) as fluxline:
        late = [result.sequence async for result in fluxline.results("live", from_sequence=190)]
        newest = [result.sequence async for result in fluxline.results("live", "latest")]
        return late, newest, (await fluxline.run("live"))["id"]


assert asyncio.run(again()) == (list(range(190, 200)), [199], "live")
assert operator not in repr(Client(url, token=operator))
print("200 results")
