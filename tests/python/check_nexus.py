"""Checks files that Fluxline wrote, with programs that know nothing of Fluxline.

    check_nexus.py pixels FRAMES MASTER...        every pixel, through the master file and the data files
    check_nexus.py missing MASTER FRAMES N,N,...  frames that were never stored
    check_nexus.py results MASTER DATASETS_JSON   reduced data and the ledger
    check_nexus.py tomography MASTER LOST         image keys and angles
    check_nexus.py geometry MASTER...             pixel positions against pyFAI, one file per orientation
    check_nexus.py validate DEFINITION MASTER...  pynx validate and nxvalidate

Prints what is wrong and exits with 1; silent and 0 where all is right.
"""

import json
import os
import re
import subprocess
import sys

import numpy as np
import h5py
import hdf5plugin  # noqa: F401  registers filter 32008

FAILED = []


def expect(condition, text):
    if not condition:
        FAILED.append(text)


def expected_frame(frame, shape, dtype):
    """The formula of tests/storage.rs."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    pixels = ((7 * frame + 3 * rows + columns) % 251).astype(dtype)
    if dtype.kind == "f":
        pixels[0, 0] = -1.5e30
    elif dtype.kind == "u":
        pixels[0, 0] = np.iinfo(dtype).max
    else:
        pixels[0, 0] = np.iinfo(dtype).min
    return pixels


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def check_pixels(frames, *masters):
    frames = int(frames)
    for master in masters:
        with h5py.File(master) as file:
            data = file["/entry/data/data"]
            expect(data.is_virtual and data.shape[0] == frames, f"{master}: {data}")
            expect(file["/entry/instrument/detector/data"] == data, f"{master}: the detector's data is another")
            for frame in range(frames):
                right = np.array_equal(data[frame], expected_frame(frame, data.shape[1:], data.dtype))
                expect(right, f"{master}: frame {frame} of {data.dtype}")
            at = 0
            links = sorted(name for name in file["/entry/data"] if name.startswith("data_"))
            for name in links:
                part = file["/entry/data"][name]
                expect(part.chunks == (1, *data.shape[1:]), f"{master}: {name} has chunks {part.chunks}")
                expect(int(part.attrs["image_nr_low"]) == at + 1, f"{master}: {name} starts at {at}")
                for frame in range(part.shape[0]):
                    right = np.array_equal(part[frame], expected_frame(at + frame, data.shape[1:], data.dtype))
                    expect(right, f"{master}: frame {frame} of {name}")
                at += part.shape[0]
                expect(int(part.attrs["image_nr_high"]) == at, f"{master}: {name} ends at {at}")
                filters = part.id.get_create_plist()
                if filters.get_nfilters():
                    number, _, values, _ = filters.get_filter(0)
                    expect((number, values) == (32008, (0, 5, data.dtype.itemsize, 0, 2)), f"{master}: {values}")
            expect(at == frames, f"{master}: the linked files have {at} frames")


def check_missing(master, frames, missing):
    frames, missing = int(frames), [int(number) for number in missing.split(",")]
    with h5py.File(master) as file:
        data = file["/entry/data/data"]
        expect(data.shape[0] == frames, f"{data.shape[0]} frames")
        for frame in range(frames):
            found = data[frame]
            if frame in missing:
                right = np.isnan(found).all() if data.dtype.kind == "f" else (found == np.iinfo(data.dtype).max).all()
            else:
                right = np.array_equal(found, expected_frame(frame, data.shape[1:], data.dtype))
            expect(right, f"frame {frame}")
        state = file["/entry/ledger/frame_state"]
        lost = np.flatnonzero(state[:frames] == 4).tolist()
        expect(lost == missing, f"the ledger has lost {lost}")
        expect(text(state.attrs["meaning"]).endswith("4 lost"), text(state.attrs["meaning"]))
        ledger = file["/entry/ledger"].attrs
        closed = ledger["complete"] + ledger["partial"] + ledger["corrupt"] + ledger["lost"]
        expect(ledger["expected"] == closed == len(state), "the ledger does not close")
        expect(int(ledger["lost"]) == int((state[()] == 4).sum()), "lost")
        expect("never stored" in text(file["/entry/data"].attrs["missing_frames"]), "missing_frames")


def check_results(master, described):
    folder = os.path.dirname(master)
    for dataset in json.loads(described):
        with h5py.File(os.path.join(folder, dataset["file"])) as file:
            found = file[dataset["path"]]
            same = list(found.shape) == dataset["shape"] and found.dtype.str == dataset["dtype"]
            chunked = found.is_virtual or list(found.chunks) == dataset["chunk_shape"]
            expect(same and chunked, f"{dataset} is {found} with chunks {found.chunks}")
    with h5py.File(master) as file:
        for data, signal, axes in [
            ("scalars", "sum", ["frame_number"]),
            ("intensity", "intensity", ["frame_number", "q"]),
            ("profile", "profile", ["frame_number", "."]),
            ("final/intensity", "intensity", ["q"]),
        ]:
            group = file["/entry/results"][data]
            expect(text(group.attrs["signal"]) == signal, f"{data}: signal {group.attrs['signal']}")
            expect([text(a) for a in group.attrs["axes"]] == axes, f"{data}: axes {group.attrs['axes']}")
            expect("intensity" not in data or "intensity_errors" in group, f"{data}: no errors")
        q = file["/entry/results/intensity/q"]
        expect(np.array_equal(q[()], 0.5 + np.arange(7)) and q.attrs["units"] == "1/nm", f"q {q[()]}")
        expect(np.array_equal(file["/entry/results/frame_number"], np.arange(1100)), "frame_number")
        version = file["/entry/results/parameters_version"][()]
        expect(version.sum() == 1098 and version[700] == version[1000] == 0, "parameters_version")
        azint = file["/entry/azint"]
        curve = file["/entry/results/intensity/intensity"]
        expect(azint["data/I"] == curve and azint["data/I_errors"].shape == (1100, 7), "azint: I")
        expect(np.array_equal(azint["data/radial_axis"], q), "azint: radial_axis")
        expect(bool(azint["solid_angle_applied"][()]) and not azint["polarization_applied"][()], "azint: corrections")
        expect(abs(azint["instrument/monochromator/energy"][()] - 12.39841984) < 1e-8, "azint: energy")
        expect(int(azint["reduction/input/azimuthal_bins"][()]) == 7, "azint: parameters")
        parameters = json.loads(text(file["/entry/process/parameters/json"][()]))
        expect(parameters["azimuthal"]["bins"] == 7, "parameters")


def check_tomography(master, lost):
    with h5py.File(master) as file:
        keys = file["/entry/instrument/detector/image_key"][()]
        wanted = np.array([2, 1, 0, 0, 0, 0, 0, 0, 0, 1])
        wanted[int(lost)] = 3
        expect(np.array_equal(keys, wanted), f"image_key {keys}")
        angles = file["/entry/data/rotation_angle"][()]
        expect(np.array_equal(angles[2:9], 30.0 * np.arange(7)), f"rotation_angle {angles}")
        expect(file["/entry/sample/rotation_angle"].attrs["units"] == "degree", "rotation_angle units")
        center = file["/entry/instrument/detector/x_rotation_axis_pixel_position"][()]
        expect(center == 16.25, f"rotation axis {center}")
        image = file["/entry/results/images/slice_xy/slice_xy"]
        right = np.array_equal(image, np.arange(6.0).reshape(2, 3)) and image.attrs["frames_used"] == 9
        expect(right, f"slice_xy {image[()]}")


def chain(file, path):
    """Matrix that takes a vector at `path` to the laboratory, following NXtransformations."""
    matrix = np.eye(4)
    while path != ".":
        link = file[path]
        value = float(np.ravel(link[()])[0])
        vector = np.asarray(link.attrs["vector"], float)
        offset = np.asarray(link.attrs["offset"], float)
        step = np.eye(4)
        if text(link.attrs["transformation_type"]) == "rotation":
            angle = np.deg2rad(value) if text(link.attrs["units"]).startswith("deg") else value
            kx, ky, kz = vector / np.linalg.norm(vector)
            k = np.array([[0, -kz, ky], [kz, 0, -kx], [-ky, kx, 0]])
            step[:3, :3] = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
            step[:3, 3] = offset
        else:
            step[:3, 3] = value * vector + offset
        matrix = step @ matrix
        path = text(link.attrs["depends_on"])
    return matrix


def check_geometry(*masters):
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    shape = (21, 33)
    for orientation, master in enumerate(masters, 1):
        detector = Detector(172e-6, 100e-6, max_shape=shape, orientation=orientation)
        reference = AzimuthalIntegrator(
            dist=0.15, poni1=0.004, poni2=0.001, rot1=0.2, rot2=-0.1, rot3=0.5, wavelength=0.9e-10, detector=detector
        )
        z, y, x = reference.calc_pos_zyx()
        with h5py.File(master) as file:
            module = file["/entry/instrument/detector/module"]
            fast, slow = module["fast_pixel_direction"], module["slow_pixel_direction"]
            rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
            place = columns[..., None] * fast[()] * fast.attrs["vector"]
            place = place + rows[..., None] * slow[()] * slow.attrs["vector"]
            matrix = chain(file, text(fast.attrs["depends_on"]))
            place = place @ matrix[:3, :3].T + matrix[:3, 3]
            # pyFAI: axis 1 is y, axis 2 points against x, axis 3 is z; it keeps pixel corners in single precision.
            found = np.abs(place - np.stack([-x, y, z], axis=-1)).max()
            expect(found < 1e-9, f"{master}: pixels are {found} m away from where pyFAI has them")
            angle = np.arctan2(np.hypot(place[..., 0], place[..., 1]), place[..., 2])
            found = np.abs(angle - reference.center_array(unit="2th_rad")).max()
            expect(found < 1e-8, f"{master}: 2theta differs by {found} rad")
            fit2d = reference.getFit2D()
            distance = file["/entry/instrument/detector/distance"][()]
            expect(abs(distance - fit2d["directDist"] * 1e-3) < 1e-9, f"{master}: distance {distance}")
            if orientation == 3:
                center = [file[f"/entry/instrument/detector/beam_center_{axis}"][()] for axis in "xy"]
                right = np.allclose(center, [fit2d["centerX"], fit2d["centerY"]], atol=1e-6)
                expect(right, f"beam centre {center}, pyFAI {fit2d['centerX'], fit2d['centerY']}")


# NXmx's own names, which one validator takes for misused suffixes, its own words on the time
# zone, a source of a kind that nobody told, and a recipe's parameter whose name ends like a suffix.
TOLERATED = [
    r"Reserved suffix '_offset' was used in \S+/module/module_offset",
    r"Reserved suffix '_mask' was used in \S+/detector/pixel_mask",
    r"The value 'unknown' at /entry/azint(_2d)?/instrument/source/type does not match .* open enumeration",
    r"/reduction/input/correct_mask",
    r"The value at /entry/instrument/time_zone = [+-]\d\d:\d\d should be a timezone aware",
]


def check_validate(definition, *masters):
    """Both programs exit with 0 whatever they find: their words count."""
    tools = os.path.dirname(sys.executable)

    def run(*command, folder):
        done = subprocess.run(
            [os.path.join(tools, command[0]), *command[1:]], cwd=folder, capture_output=True, text=True, timeout=300
        )
        output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        expect("Traceback" not in output, output)
        return output

    for master in masters:
        # pynx looks for linked files in the current folder only.
        folder, name = os.path.split(master)
        output = run("pynx", "validate", "--ignore-undocumented", name, folder=folder)
        verdicts = [line for line in output.splitlines() if f"`{definition}` application definition" in line]
        expect(len(verdicts) == 1, f"pynx validate {master}: no verdict\n{output}")
        for line in output.splitlines():
            if line.strip() and line not in verdicts and not any(re.search(words, line) for words in TOLERATED):
                FAILED.append(f"pynx validate {master}: {line}")
        with h5py.File(master) as file:
            parts = {"azint": "NXazint1d", "azint_2d": "NXazint2d"}
            entries = [("/entry", definition)]
            entries += [(f"/entry/{part}", of) for part, of in parts.items() if part in file["entry"]]
        for path, name_of_definition in entries:
            output = run("nxvalidate", "-a", name_of_definition, "-p", path, "-e", name, folder=folder)
            checked = f"Application Definition: {name_of_definition}" in output
            expect(checked and "Total number of errors: 0" in output, f"nxvalidate {path} of {master}:\n{output}")


def main():
    checks = {name[6:]: check for name, check in globals().items() if name.startswith("check_")}
    if len(sys.argv) < 3 or sys.argv[1] not in checks:
        sys.exit(__doc__)
    checks[sys.argv[1]](*sys.argv[2:])
    for line in FAILED:
        print(line)
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
