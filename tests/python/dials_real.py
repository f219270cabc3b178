"""Real frames and DIALS 3.12's masks of them as .npy, for `kernels/tests/dials.rs`. Usage: dials_real.py OUT DATA"""

import bz2
import glob
import gzip
import os
import sys

import fabio
import numpy as np


def image(path, out):
    """A packed CBF's pixels."""
    plain = os.path.join(out, "plain.cbf")
    with (bz2.open if path.endswith("bz2") else gzip.open)(path) as packed, open(plain, "wb") as file:
        file.write(packed.read())
    return fabio.open(plain).data


def main(out, data):
    frames = {
        "thau1": "mx-thaumatin-grid/thau_3_2_0001.cbf.bz2",
        "thau8": "mx-thaumatin-grid/thau_3_2_0008.cbf.bz2",
        "therm": "mx-eiger-therm/dlsnxs2cbf_therm_0001.cbf.gz",
        "i03": "mx-pilatus-i03/DLS_I03_smargon_0001.cbf.gz",
    }
    for path in sorted(glob.glob(os.path.join(data, "spot-masks/*.npz"))):
        name = os.path.basename(path)[:-4]
        answer = np.load(path)
        shape = tuple(answer["shape"])
        if name in frames:
            raw = image(os.path.join(data, frames[name]), out).astype("<i4")
        else:
            with gzip.open(os.path.join(data, "jf-module/mod5_conv%s.bin.gz" % name[2:])) as file:
                raw = np.frombuffer(file.read(), "<f4").reshape(shape)
        assert raw.shape == shape, (name, raw.shape, shape)
        masked = np.unpackbits(answer["masked"])[: raw.size].reshape(shape)
        assert np.array_equal(masked != 0, np.rint(raw) < 0), name
        np.save(os.path.join(out, name + "_raw.npy"), raw)
        for method in ("dispersion", "extended"):
            np.save(os.path.join(out, "%s_%s.npy" % (name, method)), answer[method].astype("<u4"))
        print(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
