"""Per-frame metadata as h5py reads it: python frame_metadata.py MASTER EXPECTED.json"""

import json
import sys

import h5py
import numpy as np

master, expected = sys.argv[1], json.loads(sys.argv[2])
with h5py.File(master) as file:
    group = file["entry/frame_metadata"]
    # The simulator has a clock of its own.
    assert set(group) - {"hardware_time_ns"} == set(expected["columns"]) - {"hardware_time_ns"}, list(group)
    for name, column in expected["columns"].items():
        found = group[name][()]
        if name == "hardware_time_ns":
            assert found.dtype == np.uint64
            assert all(value is None or value == there for value, there in zip(column["values"], found)), found
        else:
            values = np.array([np.nan if value is None else value for value in column["values"]])
            assert np.array_equal(found, values, equal_nan=True), (name, found, values)
        assert group[name].attrs.get("units") == column.get("unit"), (name, dict(group[name].attrs))
    if "omega" in expected:
        entry = file["entry"]
        assert entry["sample/depends_on"][()].decode() == "/entry/sample/transformations/omega"
        omega = entry["sample/transformations/omega"]
        wanted = np.array([np.nan if value is None else value for value in expected["omega"]])
        assert np.array_equal(omega[()], wanted, equal_nan=True), omega[()]
        assert omega.attrs["transformation_type"] == "rotation"
    if "rotation_angle" in expected:
        for index, value in expected["rotation_angle"].items():
            assert file["entry/sample/rotation_angle"][int(index)] == value
print("as expected")
