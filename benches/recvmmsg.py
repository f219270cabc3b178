"""A bare recvmmsg loop: what a receiver that does nothing else takes, the limit that Fluxline's UDP source is held to.

    recvmmsg.py HOST PORT PACKETS PACKET_BYTES

Counts packets until PACKETS came or none for a second; prints how many.
"""

import ctypes
import socket
import sys

BATCH = 64
RECEIVE_BUFFER_BYTES = 128 << 20  # as Fluxline's own
SO_RCVBUFFORCE = 33
MSG_WAITFORONE = 0x10000


class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


class Header(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_bytes", ctypes.c_uint32), ("pieces", ctypes.POINTER(Piece)),
                ("piece_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_bytes", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class Message(ctypes.Structure):
    _fields_ = [("header", Header), ("received", ctypes.c_uint)]


def main():
    host, port, packets, packet_bytes = sys.argv[1], *map(int, sys.argv[2:])
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    receiver.bind((host, port))
    memory = ctypes.create_string_buffer(BATCH * packet_bytes)
    pieces = (Piece * BATCH)(*(Piece(ctypes.addressof(memory) + i * packet_bytes, packet_bytes) for i in range(BATCH)))
    messages = (Message * BATCH)()
    for message, piece in zip(messages, pieces):
        message.header.pieces, message.header.piece_count = ctypes.pointer(piece), 1
    receive = ctypes.CDLL(None, use_errno=True).recvmmsg
    print("ready", flush=True)
    came, descriptor = 0, receiver.fileno()
    while came < packets:
        got = receive(descriptor, messages, BATCH, MSG_WAITFORONE, None)
        if got < 0:
            break
        if came == 0:  # from here on, silence is the end
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, (1).to_bytes(8, "little") + bytes(8))
        came += got
    print(came)


if __name__ == "__main__":
    main()
