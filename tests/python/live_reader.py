"""Follows a run that is being written, with plain h5py: no SWMR, no flag, the files opened anew at every look.

    live_reader.py FOLDER RUN FRAMES FRAMES_PER_FILE

Every frame that a file shows must hold what the writer's test writes: (7 * frame + 3 * row + column) % 251, and the largest
value in its first pixel. Prints how often more frames were there, and ends when all are.
"""
import sys
import time

import h5py
import hdf5plugin  # noqa: F401
import numpy as np

folder, run, frames, per_file = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
seen, looks, errors = 0, 0, 0
end = time.monotonic() + 60
while seen < frames:
    assert time.monotonic() < end, f"{seen} of {frames} frames after a minute"
    more = seen
    try:
        for index in range(seen // per_file, -(-frames // per_file)):
            with h5py.File(f"{folder}/{run}_data_{index + 1:06d}.h5", "r") as file:
                data = file["entry/data/data"]
                there = sorted(data.id.get_chunk_info(i).chunk_offset[0] for i in range(data.id.get_num_chunks()))
                for n in there:
                    frame = index * per_file + n
                    if frame < seen:
                        continue
                    _, rows, columns = data.shape
                    row, column = np.mgrid[:rows, :columns]
                    expected = ((7 * frame + 3 * row + column) % 251).astype(data.dtype)
                    expected[0, 0] = np.iinfo(data.dtype).max
                    assert np.array_equal(data[n], expected), f"frame {frame}"
                    more = max(more, frame + 1)
                if len(there) < per_file:
                    break
    except (OSError, RuntimeError):
        errors += 1  # the head was replaced while h5py was reading it: look again
        assert errors < 20, "the files cannot be opened"
    if more > seen:
        looks += 1
        seen = more
    time.sleep(0.1)
print(looks, "times more frames;", errors, "looks fell between two writes")
