//! The 48 bytes at the start of every packet, version 2, little-endian.
//!
//! ```text
//! byte  type  field            byte  type  field
//!    0  u64   frameNumber        34  u16   row
//!    8  u32   expLength          36  u16   column
//!   12  u32   packetNumber       38  u16   detSpec2
//!   16  u64   detSpec1           40  u32   detSpec3
//!   24  u64   timestamp, 10 MHz  44  u16   detSpec4
//!   32  u16   modId              46  u8    detType     47  u8  version
//! ```
//!
//! From slsDetectorPackage (`docs/src/udpheader.rst`, `sls_detector_header`), the same in PSI's sf_daq_buffer
//! (`core-buffer/include/jungfrau.hpp`: 48 + 8192 bytes, 128 packets) and slsdetectorgroup's arve (`Packets.h`). Sizes of
//! EIGER packets: `EigerData` in slsDetectorPackage's `GeneralData.h` (4096 bytes by 10 GbE, 1024 by 1 GbE).

use super::config::Detector;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 48;
/// The version that is read and written.
pub const VERSION: u8 = 2;

/// The header of a packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PacketHeader {
    /// number of the frame; detectors begin with 1
    pub frame_number: U64,
    /// exposure in 100 ns (JUNGFRAU), or number of sub-frames (EIGER)
    pub exp_length: U32,
    /// number of the packet within its part of the frame, from 0
    pub packet_number: U32,
    /// the detector's own
    pub det_spec1: U64,
    /// clock of 10 MHz; 0 where the detector has none
    pub timestamp: U64,
    /// number of the module
    pub module: U16,
    /// row of the part in the detector, in parts
    pub row: U16,
    /// column of the part in the detector, in parts
    pub column: U16,
    /// the detector's own
    pub det_spec2: U16,
    /// the detector's own
    pub det_spec3: U32,
    /// the detector's own
    pub det_spec4: U16,
    /// which detector
    pub detector_type: u8,
    /// [`VERSION`]
    pub version: u8,
}

const _: () = assert!(size_of::<PacketHeader>() == HEADER_BYTES && HEADER_BYTES == crate::net::HEAD_BYTES);

impl PacketHeader {
    /// Whatever the bytes say; nothing is checked.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        zerocopy::transmute!(*bytes)
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        zerocopy::transmute!(*self)
    }

    /// A header of zeros but for version and detector.
    pub fn new(detector: Detector) -> Self {
        let mut header = Self::decode(&[0; HEADER_BYTES]);
        header.detector_type = detector.code();
        header.version = VERSION;
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_documents_say() {
        let mut bytes = [0; HEADER_BYTES];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8;
        }
        let h = PacketHeader::decode(&bytes);
        assert_eq!(h.frame_number.get(), 0x0706_0504_0302_0100);
        assert_eq!((h.exp_length.get(), h.packet_number.get()), (0x0b0a_0908, 0x0f0e_0d0c));
        assert_eq!(
            (h.det_spec1.get(), h.timestamp.get()),
            (0x1716_1514_1312_1110, 0x1f1e_1d1c_1b1a_1918)
        );
        assert_eq!((h.module.get(), h.row.get(), h.column.get()), (0x2120, 0x2322, 0x2524));
        assert_eq!(
            (h.det_spec2.get(), h.det_spec3.get(), h.det_spec4.get()),
            (0x2726, 0x2b2a_2928, 0x2d2c)
        );
        assert_eq!((h.detector_type, h.version), (0x2e, 0x2f));
        assert_eq!(h.encode(), bytes);
    }
}
