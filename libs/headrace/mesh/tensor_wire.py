"""TransferService on the wire: what protobuf would write, without its two copies of every chunk.

A chunk is the largest message of the mesh by far; its two fields are written and read here by hand.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc.aio

from headrace.core.types import TensorHandle
from headrace.v1 import transfer_pb2

METHOD = "/headrace.v1.TransferService/Fetch"
CHUNK_BYTES = 1 << 20  # of the protocol; gRPC refuses messages over 4 MiB


@dataclass(frozen=True, slots=True)
class Piece:
    """A Chunk: data stands at offset of its tensor."""

    offset: int
    data: memoryview


def fetch_call(channel: grpc.aio.Channel, handle: TensorHandle, *, follow: bool) -> AsyncIterator[Piece]:
    fetch = channel.unary_stream(
        METHOD, request_serializer=transfer_pb2.FetchRequest.SerializeToString, response_deserializer=from_wire
    )
    call = fetch(transfer_pb2.FetchRequest(id=handle.id, incarnation=handle.incarnation, follow=follow))
    return aiter(call)


def to_wire(piece: Piece) -> bytes:
    """What transfer_pb2.Chunk(offset, data).SerializeToString() returns."""
    offset = b"\x08" + _varint(piece.offset) if piece.offset else b""
    return b"".join((offset, b"\x12", _varint(len(piece.data)), piece.data)) if len(piece.data) else offset


def from_wire(message: bytes) -> Piece:
    """Its data shows the message's own bytes. What does not begin as we write it is left to protobuf."""
    at, offset = 0, 0
    if message[:1] == b"\x08":
        offset, at = _read_varint(message, 1)
    if message[at : at + 1] == b"\x12":
        length, start = _read_varint(message, at + 1)
        if start + length == len(message):
            return Piece(offset, memoryview(message)[start:])
    chunk = transfer_pb2.Chunk.FromString(message)
    return Piece(chunk.offset, memoryview(chunk.data))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number and where it ends; cut off or too long: (0, 0), which no reader takes for its own."""
    value = 0
    for index in range(at, min(at + 10, len(message))):
        value |= (message[index] & 0x7F) << 7 * (index - at)
        if message[index] < 0x80:
            return value, index + 1
    return 0, 0
