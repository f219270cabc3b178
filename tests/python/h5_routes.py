"""Files of a closed run by the interface beside h5py: `h5_routes.py URL RUN FOLDER`. Prints how much was compared."""

import io
import json
import sys
import urllib.error
import urllib.parse
import urllib.request

import h5py
import hdf5plugin  # noqa: F401  (the filter that frames are stored with)
import numpy as np


def main(url, run, folder):
    base = f"{url}/api/v1/runs/{run}/h5"

    def ask(what, **params):
        with urllib.request.urlopen(f"{base}/{what}?{urllib.parse.urlencode(params)}") as answer:
            return answer.read()

    def refused(what, **params):
        try:
            ask(what, **params)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())["message"]
        raise AssertionError(f"{what} {params} was answered")

    master = f"{run}_master.h5"
    counted = {"groups": 0, "datasets": 0, "attributes": 0, "values": 0, "slices": 0}
    generator = np.random.default_rng(8)

    def attributes(path, object):
        told = json.loads(ask("attr", file=master, path=path))
        assert set(told) == set(object.attrs), (path, told)
        for name, value in object.attrs.items():
            counted["attributes"] += 1
            expected = value.tolist() if isinstance(value, np.ndarray) else value
            if isinstance(expected, (np.generic,)):
                expected = expected.item()
            if isinstance(expected, float):
                assert (told[name] is None and not np.isfinite(expected)) or np.isclose(told[name], expected, rtol=1e-6), (path, name)
            else:
                assert told[name] == expected, (path, name, told[name], expected)

    def numbers(path, dataset, selection, index):
        expected = np.asarray(dataset[index])
        wants = {"selection": selection} if selection else {}
        array = np.load(io.BytesIO(ask("data", file=master, path=path, format="npy", **wants)))
        assert array.shape == expected.shape and array.dtype == expected.dtype, (path, selection, array.dtype, expected.dtype)
        assert np.array_equal(array, expected, equal_nan=array.dtype.kind == "f"), (path, selection)
        plain = np.frombuffer(ask("data", file=master, path=path, format="bin", dtype="safe", **wants), expected.dtype)
        assert np.array_equal(plain, expected.ravel(), equal_nan=array.dtype.kind == "f"), (path, selection)
        if expected.size <= 10_000:
            text = json.loads(ask("data", file=master, path=path, **wants))
            assert np.array_equal(np.array(text, dtype=float), expected.astype(float), equal_nan=True), (path, selection)
            flat = json.loads(ask("data", file=master, path=path, flatten="true", **wants))
            assert np.array_equal(np.ravel(flat).astype(float), expected.astype(float).ravel(), equal_nan=True), path
        counted["values"] += expected.size

    def dataset(path, found):
        counted["datasets"] += 1
        entity = json.loads(ask("meta", file=master, path=path))
        shape = None if found.shape is None else list(found.shape)
        assert (entity["kind"], entity["shape"]) == ("dataset", shape), (path, entity)
        attributes(path, found)
        if h5py.check_string_dtype(found.dtype):
            text = json.loads(ask("data", file=master, path=path))
            expected = found.asstr()[()]
            assert text == (expected if isinstance(expected, str) else expected.tolist()), (path, text)
            return
        sizes = {0: entity["type"].get("size"), 1: entity["type"].get("size")}
        assert found.dtype.kind == "b" or sizes[0] == found.dtype.itemsize, (path, entity["type"])
        if found.nbytes <= 1 << 22:
            numbers(path, found, "", ())
        for _ in range(3 if found.ndim else 0):
            parts, index = [], []
            for length in found.shape:
                start, stop = sorted(generator.integers(0, length + 1, 2))
                step = int(generator.integers(1, 4))
                if length and generator.random() < 0.4:
                    start = int(generator.integers(0, length))
                    parts.append(str(start))
                    index.append(start)
                else:
                    parts.append(f"{start}:{stop}:{step}")
                    index.append(slice(int(start), int(stop), step))
            numbers(path, found, ",".join(parts), tuple(index))
            counted["slices"] += 1

    with h5py.File(f"{folder}/{master}", locking=False) as file:
        def walk(path, group):
            counted["groups"] += 1
            paths.append(path)
            entity = json.loads(ask("meta", file=master, path=path))
            assert {child["name"] for child in entity["children"]} == set(group), (path, entity)
            attributes(path, group)
            for name, child in group.items():
                below = f"{path.rstrip('/')}/{name}"
                if isinstance(child, h5py.Group):
                    walk(below, child)
                else:
                    paths.append(below)
                    dataset(below, child)

        paths = []
        walk("/", file)
        told = json.loads(ask("paths", file=master))
        assert told[0] == "/" and sorted(told) == sorted(paths), set(told) ^ set(paths)
        beneath = json.loads(ask("paths", file=master, path="/entry/results"))
        assert sorted(beneath) == sorted(path for path in paths if f"{path}/".startswith("/entry/results/")), beneath
        frames = file["entry/data/data"]
        many = ",".join(["0:1", ":", ":"])
        assert len(ask("data", file=master, path="/entry/data/data", format="bin", selection=many)) == frames[0].nbytes
        picture = ask("data", file=master, path="/entry/data/data", format="tiff", selection="0")
        assert picture[:4] == b"II*\0" and len(picture) > frames[0].nbytes

    # What leads out of the run is not there; what is no slice is refused with a sentence.
    for name in ("../run.json", "/etc/passwd", "run.json", f"../{run}/{master}", f"{master}\0", "", "%2e%2e/x.h5", "nothing.h5"):
        code, _ = refused("meta", file=name)
        assert code == 404, (name, code)
    for path in ("/nothing", "/entry/../..", "../../etc/passwd", "/entry/data/data/more", "/entry/./data", "\0"):
        code, words = refused("meta", file=master, path=path)
        assert code == 404 and "is not a valid path" in words, (path, code, words)
    for selection, code in (("-1", 400), ("99999999", 400), ("0,0,0,0", 400), ("::0", 400), ("x", 400), ("0:1e9", 400)):
        assert refused("data", file=master, path="/entry/data/data", selection=selection)[0] == code, selection
    assert refused("data", file=master, path="/entry/data")[0] == 400
    assert refused("data", file=master, path="/entry/data/data", format="exe")[0] == 400
    code, words = refused("data", file=master, path="/entry/data/data", format="bin")
    assert code == 413 and "ask for a slice" in words, (code, words)
    # A pixel of every frame is a small answer that costs every frame.
    code, words = refused("data", file=master, path="/entry/data/data", format="bin", selection=":,1,1")
    assert code == 413 and "decoding" in words, (code, words)
    print(json.dumps(counted))


main(*sys.argv[1:])
