"""The head of a frame as an object, for programs that read or write frames of their own."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import frames
from .exceptions import FrameTooLargeException, ProtocolError, WebSocketError

_RSV = 0x70


class Header:
    """RFC 6455 section 5.2."""

    __slots__ = ("fin", "flags", "length", "mask", "opcode")

    FIN_MASK: ClassVar = 0x80
    OPCODE_MASK: ClassVar = 0x0F
    MASK_MASK: ClassVar = 0x80
    LENGTH_MASK: ClassVar = 0x7F
    RSV0_MASK: ClassVar = 0x40
    RSV1_MASK: ClassVar = 0x20
    RSV2_MASK: ClassVar = 0x10
    HEADER_FLAG_MASK: ClassVar = _RSV

    def __init__(self, fin: bool = False, opcode: int = 0, flags: int = 0, length: int = 0) -> None:
        self.fin = fin
        self.opcode = opcode
        self.flags = flags
        """The three reserved bits."""
        self.length = length
        """Of the payload, in bytes."""
        self.mask = b""
        """The masking key, or nothing."""

    def __repr__(self) -> str:
        return (
            f"<Header fin={self.fin} opcode={self.opcode} length={self.length} "
            f"flags={self.flags:#x} mask={self.mask!r}>"
        )

    def mask_payload(self, payload: bytes) -> bytearray:
        """Mask or unmask a payload by the key."""
        return bytearray(frames.apply_mask(bytes(payload), self.mask))

    unmask_payload = mask_payload

    @classmethod
    def decode_header(cls, stream: Any) -> Header:
        """Read one from a file of bytes.

        Raises ProtocolError for what begins no frame, WebSocketError where the bytes end.
        """
        data = b""
        while True:
            try:
                read = frames.read_header(data)
            except frames.FrameError as error:
                if "longer than 125" in error.reason:
                    raise FrameTooLargeException(error.reason) from None
                raise ProtocolError(error.reason) from None
            if read is not None:
                break
            wanted = max(2 - len(data), 1)
            more = stream.read(wanted)
            if len(more) < wanted:
                raise WebSocketError("end of the stream within a frame's head")
            data += more
        header = cls(read.fin, read.opcode, read.rsv, read.length)
        header.mask = read.key
        return header

    @classmethod
    def encode_header(cls, fin: bool, opcode: int, mask: bytes, length: int, flags: int) -> bytes:
        """Build the bytes; `mask` is the masking key, or nothing."""
        if length >= 1 << 63:
            raise FrameTooLargeException("a frame has at most 2**63 - 1 bytes")
        return frames.header(opcode, length, fin=bool(fin), rsv=flags & _RSV, key=bytes(mask))
