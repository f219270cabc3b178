"""Frames of a run over HTTP by plain h5py, which asks for the bytes that it wants, beside the same from the disk.

    ranges.py URL RUN FRAMES_PER_FILE FRAMES FOLDER
"""
import io
import os
import sys
import urllib.request

import h5py
import hdf5plugin  # noqa: F401
import numpy as np


class Remote(io.RawIOBase):
    """A file that is read by ranges."""

    def __init__(self, url):
        self.url, self.at, self.read_bytes = url, 0, 0
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:
            assert answer.headers["Accept-Ranges"] == "bytes", answer.headers
            self.size = int(answer.headers["Content-Length"])

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self.at

    def seek(self, offset, whence=io.SEEK_SET):
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, into):
        last = min(self.at + len(into), self.size) - 1
        if last < self.at:
            return 0
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={self.at}-{last}"})
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 206, answer.status
            found = answer.read()
        assert len(found) == last + 1 - self.at
        into[:len(found)] = found
        self.at += len(found)
        self.read_bytes += len(found)
        return len(found)


def main():
    url, run, per_file, frames, folder = sys.argv[1:]
    per_file, frames = int(per_file), int(frames)
    for slot, first in enumerate(range(0, frames, per_file)):
        name = f"{run}_data_{slot + 1:06}.h5"
        remote = Remote(url + name)
        with h5py.File(remote, "r") as there, h5py.File(os.path.join(folder, name), "r") as here:
            count = min(per_file, frames - first)
            ours, theirs = here["entry/data/data"], there["entry/data/data"]
            assert theirs.shape == ours.shape and len(theirs) == count
            wanted = slice(count // 3, count // 3 + 2)
            before = remote.read_bytes
            assert np.array_equal(theirs[wanted], ours[wanted])
            assert remote.read_bytes - before < 3 * ours[0].nbytes, "more than those frames was read"
    print(f"two frames of each file by ranges, {remote.read_bytes} of {remote.size} bytes of the last one")


main()
