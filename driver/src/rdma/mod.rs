//! Frames by RDMA: the network card places each frame in the ring, where the kernels read it.
//!
//! The protocol, byte by byte: `driver/PROTOCOL.md`.

#![allow(unsafe_code)]

pub mod verbs;
