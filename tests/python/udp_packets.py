"""JUNGFRAU and EIGER packets by software that is not Fluxline's: struct and sockets, h5py with hdf5plugin, pyFAI.

Usage: udp_packets.py CHECK ARGUMENT..., see the functions at the end.
"""

import json
import socket
import struct
import sys
import time

import h5py
import hdf5plugin  # noqa: F401
import numpy as np

# frameNumber, expLength, packetNumber, detSpec1, timestamp, modId, row, column, detSpec2, detSpec3, detSpec4, detType, version
HEADER = struct.Struct("<QIIQQHHHHIHBB")
assert HEADER.size == 48


class Geometry:
    """Parts of a detector: described as DETECTOR,MODULE_ROWS,MODULE_COLUMNS,GAP_ROWS,GAP_COLUMNS,INTERFACES,BITS,BYTES."""

    def __init__(self, text):
        name, *numbers = text.split(",")
        rows, columns, gap_rows, gap_columns, interfaces, bits, self.bytes = map(int, numbers)
        self.type = {"eiger": 1, "jungfrau": 3}[name]
        down, across = (2, 2) if name == "eiger" else (interfaces, 1)
        self.dtype = np.dtype(f"<u{bits // 8}")
        self.part = (512 // down, 1024 // across)
        self.shape = (rows * 512 + (rows - 1) * gap_rows, columns * 1024 + (columns - 1) * gap_columns)
        self.packets = self.part[0] * self.part[1] * self.dtype.itemsize // self.bytes
        self.places = [(r, c, r // down * (512 + gap_rows) + r % down * self.part[0],
                        c // across * (1024 + gap_columns) + c % across * self.part[1])
                       for r in range(rows * down) for c in range(columns * across)]
        self.mask = np.iinfo(self.dtype).max

    def cut(self, frame, part):
        """The bytes of a part."""
        _, _, row, column = self.places[part]
        return np.ascontiguousarray(frame[row:row + self.part[0], column:column + self.part[1]]).tobytes()

    def arrived(self, frame, missing):
        """What a receiver must make of a frame without the packets (part, number) of `missing`, and its missing bits."""
        whole = np.full(self.shape, self.mask, self.dtype)
        bits = np.zeros(len(self.places) * self.packets, bool)
        for part, (_, _, row, column) in enumerate(self.places):
            data = bytearray(self.cut(frame, part))
            for number in range(self.packets):
                if (part, number) in missing:
                    data[number * self.bytes:(number + 1) * self.bytes] = b"\xff" * self.bytes
                    bits[part * self.packets + number] = True
            whole[row:row + self.part[0], column:column + self.part[1]] = np.frombuffer(data, self.dtype).reshape(self.part)
        return whole, np.packbits(bits, bitorder="little")


def integrator(shape):
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator
    detector = Detector(75e-6, 75e-6, max_shape=shape, orientation=3)
    return AzimuthalIntegrator(0.1, shape[0] * 40e-6, shape[1] * 36e-6, detector=detector, wavelength=1e-10)


def make(path, poni, geometry, frames):
    """A file of frames, and a geometry."""
    geometry, random = Geometry(geometry), np.random.default_rng(3)
    limit = min(geometry.mask, 60000)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (int(frames), *geometry.shape), geometry.dtype, chunks=(1, *geometry.shape))
        for frame in range(int(frames)):
            data[frame] = random.integers(0, limit, geometry.shape, geometry.dtype)
    integrator(geometry.shape).save(poni)


def check(path, master, report, geometry):
    """Stored frames, ledger, bits, mask and curves against what was sent and what was lost."""
    geometry = Geometry(geometry)
    with open(report, encoding="utf-8") as file:
        lost = json.load(file)["missing"]
    by_frame = {}
    for frame, part, number in lost:
        by_frame.setdefault(frame - 1, set()).add((part, number))
    ai, curves = integrator(geometry.shape), 0
    gaps = np.ones(geometry.shape, bool)
    for _, _, row, column in geometry.places:
        gaps[row:row + geometry.part[0], column:column + geometry.part[1]] = False
    with h5py.File(path) as sent, h5py.File(master) as run:
        stored, ledger = run["entry/data/data"], run["entry/ledger"]
        assert np.array_equal(run["entry/instrument/detector/pixel_mask"][()] & 1 != 0, gaps), "gaps are masked"
        state, count = ledger["frame_state"][()], ledger["parts_missing"][()]
        bits = ledger["parts_missing_bits"][()]
        curve = run["entry/results/intensity/intensity"] if "intensity" in run["entry/results"] else None
        for frame in range(len(sent["data"])):
            missing = by_frame.get(frame, set())
            expected, expected_bits = geometry.arrived(sent["data"][frame], missing)
            assert np.array_equal(stored[frame], expected), f"frame {frame}"
            assert state[frame] == (2 if missing else 1), (frame, state[frame])
            assert count[frame] == len(missing), (frame, count[frame], len(missing))
            assert np.array_equal(bits[frame], expected_bits), f"bits of frame {frame}"
            if curve is not None and curves < 12:
                curves += 1
                wanted = ai.integrate1d_ng(expected, 200, mask=(gaps | (expected == geometry.mask)).astype(np.int8),
                                           unit="q_nm^-1", radial_range=(2.0, 20.0), method=("no", "csr", "cython"),
                                           correctSolidAngle=True, error_model="poisson")
                pixels = run["entry/results/intensity_pixels/intensity_pixels"][frame]
                np.testing.assert_allclose(pixels, wanted.count, atol=1)
                good = wanted.count > 0
                np.testing.assert_allclose(curve[frame][good], wanted.intensity[good], rtol=3e-4)
    print(f"{len(lost)} packets missing in {len(by_frame)} frames, {curves} curves compared with pyFAI")


def send(address, path, geometry, rate):
    """Every frame of a file as packets, made with struct."""
    geometry = Geometry(geometry)
    host, port = address.split(":")
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with h5py.File(path) as file:
        for frame in range(len(file["data"])):
            parts = [geometry.cut(file["data"][frame], part) for part in range(len(geometry.places))]
            for number in range(geometry.packets):
                for part, (row, column, _, _) in enumerate(geometry.places):
                    head = HEADER.pack(frame + 1, 100, number, 7, 1000 + frame, part, row, column, 1, 2, 3,
                                       geometry.type, 2)
                    out.sendto(head + parts[part][number * geometry.bytes:(number + 1) * geometry.bytes], (host, int(port)))
            time.sleep(1 / float(rate))


if __name__ == "__main__":
    {"make": make, "check": check, "send": send}[sys.argv[1]](*sys.argv[2:])
