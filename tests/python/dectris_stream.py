"""The other end of DECTRIS streams, by software that is not Fluxline's: pyzmq, cbor2, dectris-compression, h5py with hdf5plugin.

Usage: dectris_stream.py CHECK ARGUMENT..., see the functions at the end.
"""

import glob
import gzip
import json
import os
import socket
import sys
import time

import cbor2
import h5py
import hdf5plugin
import numpy as np
import zmq
from dectris.compression import decompress

TYPES = {64: "u1", 69: "<u2", 70: "<u4", 77: "<i2", 78: "<i4", 85: "<f4"}


def plain(value):
    """Tags of RFC 8746 and 56500 as arrays."""
    if isinstance(value, cbor2.CBORTag):
        if value.tag == 40:
            shape, array = value.value
            return plain(array).reshape([int(n) for n in shape])
        if value.tag == 56500:
            algorithm, size, data = value.value
            return decompress(data, algorithm, elem_size=size)
        if value.tag in TYPES:
            return np.frombuffer(plain(value.value), TYPES[value.tag])
        return plain(value.value)
    if hasattr(value, "items"):
        return {key: plain(item) for key, item in value.items()}
    return value


def real_messages(folder):
    for name in sorted(glob.glob(os.path.join(folder, "msg_*.cbor.gz"))):
        with gzip.open(name) as file:
            yield file.read()


def push(address):
    socket = zmq.Context.instance().socket(zmq.PUSH)
    socket.setsockopt(zmq.LINGER, 30000)
    socket.setsockopt(zmq.SNDTIMEO, 30000)
    socket.bind(address)
    return socket


def frames(master):
    with h5py.File(master) as file:
        return file["entry/data/data"][()]


def check_real(master, folder):
    """The run of the real messages holds the pixels that dectris-compression gives, and the detector's own words."""
    start, *images, _ = [plain(cbor2.loads(message)) for message in real_messages(folder)]
    with h5py.File(master) as file:
        data = file["entry/data/data"]
        assert data.shape == (10, 1065, 1030) and data.dtype == np.uint32, data
        for image in images:
            want = image["data"]["threshold_1"]
            assert np.array_equal(data[image["image_id"]], want), image["image_id"]
        assert data[0].max() > 50000, "the hot pixel"
        detector = file["entry/instrument/detector"]
        assert np.array_equal(detector["pixel_mask"][()], start["pixel_mask"]["threshold_1"])
        assert np.array_equal(detector["flatfield"][()], start["flatfield"]["threshold_1"])
        assert np.array_equal(detector["countrate_correction_lookup_table"][()], start["countrate_correction_lookup_table"])
        assert detector["saturation_value"][()] == start["saturation_value"]
        assert detector["serial_number"][()].decode() == start["detector_serial_number"]
        assert detector["sensor_thickness"][()] == start["sensor_thickness"]
        assert detector["threshold_energy"][()] == 4000
        assert bool(detector["flatfield_applied"][()]) is True
        wavelength = file["entry/instrument/beam/incident_wavelength"][()]
        assert abs(wavelength - start["incident_wavelength"]) < 1e-12, wavelength
    print("10 images, mask, flat field, count-rate table identical")


def send_real(address, folder):
    socket = push(address)
    for message in real_messages(folder):
        socket.send(message)
    socket.close()


def make(path, dtype, count, packed, rows=66, columns=50):
    """A file of frames, bitshuffle-LZ4 or plain."""
    random = np.random.default_rng(7)
    rows, columns = int(rows), int(columns)
    data = random.poisson(3, (int(count), rows, columns)).astype(dtype)
    data[:, 5, 6] = np.iinfo(dtype).max
    data[:, 0, 0] = np.arange(int(count))
    with h5py.File(path, "w") as file:
        options = hdf5plugin.Bitshuffle(cname="lz4") if packed == "packed" else {}
        file.create_dataset("data", data=data, chunks=(1, rows, columns), **options)


def same(path, master):
    with h5py.File(path) as file:
        want = file["data"][()]
    got = frames(master)
    assert got.dtype == want.dtype and np.array_equal(got, want), (got.shape, want.shape, got.dtype)
    print(f"{len(got)} frames identical")


def series_v2(socket):
    """The messages of one series as they come."""
    while True:
        message = cbor2.loads(socket.recv())
        yield plain(message)
        if message["type"] == "end":
            return


def receive_v2(address, path, connected=None):
    """What the emulator or an emitting run sends, decoded by others, is the file. `connected` is made when it is."""
    with h5py.File(path) as file:
        want = file["data"][()]
    socket = pull(address, connected)
    messages = list(series_v2(socket))
    start, images = messages[0], messages[1:-1]
    assert start["type"] == "start" and start["channels"][0] == "threshold_1", start
    assert start["number_of_images"] == len(want) and start["image_dtype"] == want.dtype.name
    assert (start["image_size_y"], start["image_size_x"]) == want.shape[1:]
    unique = {message["series_unique_id"] for message in messages}
    assert len(unique) == 1 and len(unique.pop()) == 26
    assert [image["image_id"] for image in images] == list(range(len(want)))
    for image, frame in zip(images, want):
        got = image["data"]["threshold_1"]
        assert got.dtype == frame.dtype and np.array_equal(got, frame)
        assert image["stop_time"][1] == image["start_time"][1]
    print(f"{len(images)} images identical")


def receive_v1(address, path):
    with h5py.File(path) as file:
        want = file["data"][()]
    socket = pull(address)
    head, configuration, *arrays = [part for part in socket.recv_multipart()]
    assert json.loads(head)["htype"] == "dheader-1.0"
    configuration = json.loads(configuration)
    assert configuration["nimages"] == len(want), configuration
    for index, frame in enumerate(want):
        head, array, data, _ = socket.recv_multipart()
        head, array = json.loads(head), json.loads(array)
        assert (head["htype"], head["frame"]) == ("dimage-1.0", index)
        assert array["shape"] == list(frame.shape[::-1]) and array["size"] == len(data)
        if array["encoding"] == "<":
            got = np.frombuffer(data, array["type"])
        else:
            assert array["encoding"] == f"bs{8 * frame.itemsize}-lz4<"
            got = np.frombuffer(decompress(data, "bslz4", elem_size=frame.itemsize), array["type"])
        assert np.array_equal(got.reshape(frame.shape), frame)
    assert json.loads(socket.recv())["htype"] == "dseries_end-1.0"
    print(f"{len(want)} images identical")


def pull(address, connected=None):
    socket = zmq.Context.instance().socket(zmq.PULL)
    socket.setsockopt(zmq.RCVTIMEO, 60000)
    if connected:
        events = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        socket.connect(address)
        events.recv_multipart()
        with open(connected, "w", encoding="utf-8"):
            pass
    else:
        socket.connect(address)
    return socket


def typed(frame, packing):
    tag = {1: 64, 2: 69, 4: 70}[frame.itemsize]
    data = frame.tobytes()
    if packing == "lz4":
        with h5py.File("packed", "w", driver="core", backing_store=False) as file:
            chunk = file.create_dataset("d", data=frame, chunks=frame.shape, **hdf5plugin.LZ4())
            file.flush()
            data = cbor2.CBORTag(56500, ["lz4", 0, chunk.id.read_direct_chunk((0, 0))[1]])
    if packing in ("bslz4", "bszstd"):
        with h5py.File("packed", "w", driver="core", backing_store=False) as file:
            chunk = file.create_dataset("d", data=frame, chunks=frame.shape, **hdf5plugin.Bitshuffle(cname=packing[2:]))
            file.flush()
            data = cbor2.CBORTag(56500, [packing, frame.itemsize, chunk.id.read_direct_chunk((0, 0))[1]])
    return cbor2.CBORTag(40, [list(frame.shape), cbor2.CBORTag(tag, data)])


def send_mixed(address, path):
    """Two channels; the second holds the file's frames, one after another plain and in all three packings."""
    with h5py.File(path) as file:
        data = file["data"][()]
    socket = push(address)
    series = {"series_id": 3, "series_unique_id": "01MIXEDMIXEDMIXEDMIXEDMIXE"}
    socket.send(cbor2.dumps({
        "type": "start", **series, "channels": ["threshold_1", "threshold_2"], "image_size_x": data.shape[2],
        "image_size_y": data.shape[1], "number_of_images": len(data), "user_data": {"nested": [1, {"a": None}]},
        "goniometer": {"omega": {"start": 5.0, "increment": 0.5}, "chi": {"start": 1.0, "increment": 0.0}},
        "pixel_mask": {"threshold_2": typed(np.zeros(data.shape[1:], np.uint32), "bslz4")},
    }))
    for index, frame in enumerate(data):
        other = typed(np.zeros_like(frame), "none")
        wanted = typed(frame, ("none", "lz4", "bslz4", "bszstd")[index % 4])
        socket.send(cbor2.dumps({
            "type": "image", **series, "image_id": index, "start_time": [index, 10], "real_time": [1, 10],
            "stop_time": [index + 1, 10],
            "user_data": ("of the image", {"I0": 100.5 + index, "sam x": -index, "why": {"deep": [1]}, 7: 8}, 3)[index % 3],
            "data": {"threshold_1": other, "threshold_2": wanted},
        }))
    socket.send(cbor2.dumps({"type": "end", **series}))
    socket.close()


def angles(master, first, increment):
    with h5py.File(master) as file:
        omega = file["entry/sample/transformations/omega"][()]
    assert np.allclose(omega, float(first) + float(increment) * np.arange(len(omega))), omega
    print(f"{len(omega)} angles")


def metadata(master):
    """What `send_mixed` says of single images is in the file under the images' numbers."""
    with h5py.File(master) as file:
        group = file["entry/frame_metadata"]
        found = {name: group[name][()] for name in group}
        assert group.attrs["NX_class"] == "NXcollection", dict(group.attrs)
        assert group["hardware_time_ns"].attrs["units"] == "ns"
    assert set(found) == {"hardware_time_ns", "real_time_s", "stop_time_s", "I0", "sam_x", "user_data"}, found
    frames = np.arange(len(found["I0"]))
    assert found["hardware_time_ns"].dtype == np.uint64
    assert np.array_equal(found["hardware_time_ns"], frames * 100_000_000)
    assert np.allclose(found["real_time_s"], 0.1) and np.allclose(found["stop_time_s"], (frames + 1) / 10)
    there = frames % 3 == 1
    assert np.array_equal(found["I0"][there], 100.5 + frames[there]) and np.isnan(found["I0"][~there]).all()
    assert np.array_equal(found["sam_x"][there], -frames[there])
    assert np.array_equal(np.isfinite(found["user_data"]), frames % 3 == 2)
    print(f"{len(frames)} frames with metadata")


def send_minimal_v1(address, path):
    """Stream V1 whose header says nothing, its images one LZ4 block each, as SIMPLON's `lz4<`."""
    with h5py.File(path) as file:
        data = file["data"][()]
    socket = push(address)
    socket.send(json.dumps({"htype": "dheader-1.0", "series": 5, "header_detail": "none"}).encode())
    for index, frame in enumerate(data):
        with h5py.File("packed", "w", driver="core", backing_store=False) as file:
            chunk = file.create_dataset("d", data=frame, chunks=frame.shape, **hdf5plugin.LZ4(nbytes=1 << 20))
            file.flush()
            block = chunk.id.read_direct_chunk((0, 0))[1][16:]  # without size, block size and length
        parts = [
            {"htype": "dimage-1.0", "series": 5, "frame": index, "hash": ""},
            {"htype": "dimage_d-1.0", "shape": list(frame.shape[::-1]), "type": frame.dtype.name, "encoding": "lz4<",
             "size": len(block)},
            block,
            {"htype": "dconfig-1.0", "start_time": 1000 * index, "stop_time": 1000 * index + 900, "real_time": 900},
        ]
        socket.send_multipart([part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts])
    socket.send(json.dumps({"htype": "dseries_end-1.0", "series": 5}).encode())
    socket.close()


def send_rubbish(address, path):
    """A good series with all kinds of messages in its midst that are none."""
    with h5py.File(path) as file:
        data = file["data"][()]
    socket = push(address)
    series = {"series_id": 1, "series_unique_id": "01RUBBISHRUBBISHRUBBISHRUB"}
    rubbish = [b"", b"\x00", b"{", b"\x81" * 100000, b"\x9f" * 100000, b"\xbf" * 100000, os.urandom(5000),
               b"\xa1\x64data\xbb" + b"\xff" * 8, cbor2.dumps({"type": "image"}), cbor2.dumps({"type": "what"}),
               cbor2.dumps({"type": "image", **series, "image_id": 0, "data": {"threshold_1": 5}})]
    socket.send(cbor2.dumps({"type": "start", **series, "channels": ["threshold_1"], "image_dtype": data.dtype.name,
                             "image_size_x": data.shape[2], "image_size_y": data.shape[1],
                             "number_of_images": len(data)}))
    for index, frame in enumerate(data):
        if index < len(rubbish):
            socket.send(rubbish[index])
        socket.send(cbor2.dumps({"type": "image", **series, "image_id": index,
                                 "data": {"threshold_1": typed(frame, "bslz4")}}))
    for bad in rubbish:
        socket.send_multipart([bad] * 20)
    socket.send(cbor2.dumps({"type": "end", **series}))
    time.sleep(0.1)
    socket.close()
    print(2 * len(rubbish))


class Hand:
    """A PUSH socket without ZeroMQ: ZMTP 3.1 (RFC 37) byte by byte, sent in pieces of any size."""

    def __init__(self, address):
        host, port = address.removeprefix("tcp://").split(":")
        self.listener = socket.create_server((host, int(port)))
        self.random = np.random.default_rng(5)
        self.accept()

    def accept(self):
        self.peer, _ = self.listener.accept()
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer.settimeout(60)
        self.pieces(b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + b"\0" + bytes(31), 9)
        greeting = self.receive(64)
        assert greeting[0] == 0xff and greeting[9] == 0x7f and greeting[10] == 3, greeting
        assert greeting[12:32] == b"NULL" + bytes(16) and greeting[32] == 0, greeting
        name, properties = self.command()
        assert name == b"READY" and properties == b"\x0bSocket-Type\0\0\0\x04PULL", properties
        self.pieces(self.framed(b"\x05READY\x0bSocket-Type\0\0\0\x04PUSH\x08Identity\0\0\0\0", 4), 11)

    def receive(self, count):
        data = b""
        while len(data) < count:
            more = self.peer.recv(count - len(data))
            assert more, "the other side has ended the connection"
            data += more
        return data

    def command(self):
        flags, length = self.receive(2)
        assert flags == 4, flags
        body = self.receive(length)
        return body[1:1 + body[0]], body[1 + body[0]:]

    def framed(self, body, flags=0):
        if len(body) < 256:
            return bytes([flags, len(body)]) + body
        return bytes([flags | 2]) + len(body).to_bytes(8, "big") + body

    def pieces(self, data, most):
        while data:
            cut = int(self.random.integers(1, most + 1))
            self.peer.sendall(data[:cut])
            data = data[cut:]

    def send(self, message, most=30000):
        self.pieces(self.framed(message), most)

    def ping(self, context):
        """A heartbeat is answered with its context, in its turn."""
        self.pieces(self.framed(b"\x04PING\0\x64" + context, 4), 3)
        assert self.command() == (b"PONG", context)

    def end(self):
        self.peer.shutdown(socket.SHUT_WR)
        self.peer.close()


def send_by_hand(address, path):
    """A series through that socket: pixels at the end of the message and in its midst, a connection that breaks within an
    image, heartbeats before, between and behind."""
    with h5py.File(path) as file:
        data = file["data"][()]
    hand = Hand(address)
    hand.ping(b"")
    series = {"series_id": 1, "series_unique_id": "01BYHANDBYHANDBYHANDBYHAND"}
    hand.send(cbor2.dumps({"type": "start", **series, "channels": ["threshold_1"], "image_dtype": data.dtype.name,
                           "image_size_x": data.shape[2], "image_size_y": data.shape[1], "number_of_images": len(data)}), 50)
    for index, frame in enumerate(data):
        pixels = {"data": {"threshold_1": typed(frame, ("none", "bslz4")[index % 2])}}
        number = {"image_id": index, "start_time": [index, 10]}
        image = {"type": "image", **series, **(number | pixels if index % 5 else pixels | number)}
        message = cbor2.dumps(image)
        if index % 7 == 3:
            hand.ping(b"heartbeat %d" % index)
        if index in (6, 13):
            whole = hand.framed(message)
            hand.pieces(whole[:len(whole) * 2 // 3], 30000)
            hand.end()
            hand.accept()
        hand.send(message, 30000 if index % 2 else 1500)
    hand.send(cbor2.dumps({"type": "end", **series}))
    hand.ping(b"sixteen bytes it")
    hand.end()


CHECKS = {check.__name__: check for check in (
    check_real, send_real, make, same, receive_v2, receive_v1, send_mixed, angles, metadata, send_minimal_v1, send_rubbish, send_by_hand)}

if __name__ == "__main__":
    CHECKS[sys.argv[1]](*sys.argv[2:])
