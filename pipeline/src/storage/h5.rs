//! The calls of libhdf5 that its Rust crate does not wrap, or wraps with allocations, and `statvfs`.
//!
//! Rules of this file: every call of libhdf5 runs inside [`hdf5::sync::sync`], the crate's one lock, which
//! also silences the library's own printing; identifiers are owned by the structures here and closed once,
//! in `Drop`; every pointer handed over belongs to a slice that lives through the call and whose length was
//! checked just before. Nothing here allocates in Rust unless a call fails.
#![allow(unsafe_code)]

use super::codec;
use frame::PixelType;
use frame::codec::{Beneath, Scratch, compress, compress_bound, decompress};
use hdf5::sync::sync;
use hdf5_sys::h5::{H5allocate_memory, H5free_memory, HADDR_UNDEF, hsize_t};
use hdf5_sys::h5d::{H5Dget_chunk_info_by_coord, H5Dget_space, H5Dwrite};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5s::{H5S_seloper_t, H5Sclose, H5Screate_simple, H5Sselect_hyperslab};
use hdf5_sys::h5z::{H5Z_CLASS_T_VERS, H5Z_FLAG_REVERSE, H5Z_class2_t, H5Zregister};
use std::ffi::{c_uint, c_void};
use std::io;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

/// Registered number of the bitshuffle filter.
pub(super) const BITSHUFFLE_FILTER: i32 = 32008;
/// Zstandard among its client values.
const ZSTD: c_uint = 3;

/// Client values of the bitshuffle filter as `hdf5plugin` stores them: version 0.5 of its reference
/// implementation, element size, block size chosen by the encoder, LZ4 (2) or Zstandard (3).
pub(super) fn bitshuffle_values(pixel_type: PixelType, beneath: Beneath) -> [c_uint; 5] {
    let code = match beneath {
        Beneath::Lz4 => 2,
        Beneath::Zstd => ZSTD,
    };
    [0, 5, pixel_type.bytes() as c_uint, 0, code]
}

/// What the bitshuffle filter of a dataset has beneath; `None` of one without that filter.
pub(super) fn beneath(dataset: &hdf5::Dataset) -> Option<Beneath> {
    dataset.filters().iter().find_map(|filter| match filter {
        hdf5::filters::Filter::User(BITSHUFFLE_FILTER, values) if values.get(4) == Some(&ZSTD) => Some(Beneath::Zstd),
        hdf5::filters::Filter::User(BITSHUFFLE_FILTER, _) => Some(Beneath::Lz4),
        _ => None,
    })
}

/// Makes libhdf5 able to store and read bitshuffle-LZ4 chunks in this process.
pub(super) fn register_bitshuffle() -> Result<(), hdf5::Error> {
    static REGISTERED: OnceLock<Result<(), String>> = OnceLock::new();
    let registered = REGISTERED.get_or_init(|| {
        let class = H5Z_class2_t {
            version: H5Z_CLASS_T_VERS as _,
            id: BITSHUFFLE_FILTER,
            encoder_present: 1,
            decoder_present: 1,
            name: c"bitshuffle-LZ4".as_ptr(),
            can_apply: None,
            set_local: None,
            filter: Some(bitshuffle),
        };
        sync(|| {
            // SAFETY: `class` is a complete H5Z_class2_t of the version that it names; the library copies it
            // and keeps only the name, which is static, and the callback, which is a plain function.
            check(unsafe { H5Zregister(ptr::from_ref(&class).cast()) })
                .map(drop)
                .map_err(|e| e.to_string())
        })
    });
    registered.clone().map_err(hdf5::Error::from)
}

/// The filter as libhdf5 calls it, in both directions. Returns the bytes in `*buffer`, 0 on failure.
///
/// # Safety
/// As the library promises: `*buffer` holds `used` readable bytes made by its allocator, and `values` has
/// `value_count` elements.
unsafe extern "C" fn bitshuffle(
    flags: c_uint,
    value_count: usize,
    values: *const c_uint,
    used: usize,
    capacity: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    if value_count < 3 || values.is_null() {
        return 0;
    }
    // SAFETY: at least three values, as just checked.
    let element_bytes = unsafe { *values.add(2) } as usize;
    // SAFETY: the library's promise on `*buffer` and `used`; the slice ends before `*buffer` is replaced.
    let input = unsafe { std::slice::from_raw_parts((*buffer).cast::<u8>().cast_const(), used) };
    // SAFETY: five values at least, as checked in the same expression.
    let zstd = value_count >= 5 && unsafe { *values.add(4) } == ZSTD;
    let beneath = if zstd { Beneath::Zstd } else { Beneath::Lz4 };
    let decode = flags & H5Z_FLAG_REVERSE != 0;
    if zstd && !decode {
        return 0; // Zstandard is stored as it came and never made here
    }
    let room = if decode {
        codec::decompressed_bytes(input, beneath)
    } else {
        Some(compress_bound(used, element_bytes))
    };
    let Some(room) = room.filter(|room| *room > 0) else {
        return 0;
    };
    // SAFETY: plain allocation by the allocator that the library frees filter buffers with, zeroed.
    let fresh = unsafe { H5allocate_memory(room, true.into()) };
    if fresh.is_null() {
        return 0;
    }
    // SAFETY: `room` initialised bytes that nothing else refers to.
    let output = unsafe { std::slice::from_raw_parts_mut(fresh.cast::<u8>(), room) };
    let made = if decode {
        decompress(beneath, input, element_bytes, output, &mut Scratch::default()).map(|()| room)
    } else {
        compress(input, element_bytes, output, &mut Scratch::default())
    };
    match made {
        Ok(bytes) => {
            // SAFETY: the old buffer came from the library's allocator and is not used again; `buffer` and
            // `capacity` are the library's own out-parameters.
            unsafe {
                H5free_memory(*buffer);
                *buffer = fresh;
                *capacity = room;
            }
            bytes
        }
        Err(_) => {
            // SAFETY: allocated above and handed to nobody.
            unsafe { H5free_memory(fresh) };
            0
        }
    }
}

/// A number type of result rows. Sealed by this module: libhdf5 reads exactly `size_of::<Self>()` bytes each.
pub(super) trait Number: hdf5::H5Type + Copy {}
impl Number for f32 {}
impl Number for f64 {}
impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}

/// Writes consecutive rows of a dataset of one to three dimensions without allocating in Rust. A row of three dimensions
/// is a picture.
#[derive(Debug)]
pub(super) struct RowWriter<T> {
    dataset: hdf5::Dataset,
    memory_type: hdf5::Datatype,
    space: hid_t,
    rows: usize,
    rank: i32,
    /// what follows the rows; 1 where there is no such dimension
    inner: [usize; 2],
    number: std::marker::PhantomData<T>,
}

impl<T: Number> RowWriter<T> {
    /// A writer for `dataset`, whose shape is `[rows]`, `[rows, columns]` or `[rows, height, width]`.
    pub(super) fn new(dataset: hdf5::Dataset) -> Result<Self, hdf5::Error> {
        let shape = dataset.shape();
        let (rows, rank, inner) = match shape[..] {
            [rows] => (rows, 1, [1, 1]),
            [rows, columns] => (rows, 2, [columns, 1]),
            [rows, height, width] => (rows, 3, [height, width]),
            _ => return Err(format!("rows of a dataset of shape {shape:?}").into()),
        };
        let memory_type = hdf5::Datatype::from_type::<T>()?;
        sync(|| {
            // SAFETY: the dataset is open; the new identifier belongs to this value.
            let space = check(unsafe { H5Dget_space(dataset.id()) })?;
            Ok(Self {
                dataset,
                memory_type,
                space,
                rows,
                rank,
                inner,
                number: std::marker::PhantomData,
            })
        })
    }

    /// Writes `values`, whole rows, from row `first` on.
    pub(super) fn write(&mut self, first: usize, values: &[T]) -> Result<(), hdf5::Error> {
        let [height, width] = self.inner;
        let rows = values.len() / (height * width).max(1);
        if rows == 0 || rows * height * width != values.len() || first + rows > self.rows {
            let shape = (self.rows, height, width);
            return Err(format!("{} values at row {first} of a dataset of {shape:?}", values.len()).into());
        }
        let start: [hsize_t; 3] = [first as hsize_t, 0, 0];
        let count: [hsize_t; 3] = [rows as hsize_t, height as hsize_t, width as hsize_t];
        sync(|| {
            // SAFETY: `space` is this dataset's, of rank `self.rank`; `start` and `count` have at least as many
            // elements. The selection holds `values.len()` numbers and so does the memory space, whose type
            // is T's, so the library reads exactly `values`.
            unsafe {
                let select = H5S_seloper_t::H5S_SELECT_SET;
                check(H5Sselect_hyperslab(
                    self.space,
                    select,
                    start.as_ptr(),
                    ptr::null(),
                    count.as_ptr(),
                    ptr::null(),
                ))?;
                let memory = check(H5Screate_simple(self.rank, count.as_ptr(), ptr::null()))?;
                let data = values.as_ptr().cast();
                let id = self.dataset.id();
                let written = check(H5Dwrite(
                    id,
                    self.memory_type.id(),
                    memory,
                    self.space,
                    H5P_DEFAULT,
                    data,
                ));
                H5Sclose(memory);
                written.map(drop)
            }
        })
    }
}

impl<T> Drop for RowWriter<T> {
    fn drop(&mut self) {
        sync(|| {
            // SAFETY: the space belongs to this value and is closed once.
            unsafe { H5Sclose(self.space) };
        });
    }
}

/// Where the stored bytes of a chunk lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkPlace {
    /// from the start of the file
    pub(super) offset: u64,
    /// as stored
    pub(super) bytes: u64,
    /// bit `i`: filter `i` was not applied
    pub(super) filters_skipped: u32,
}

/// Where frame `index` of a dataset of three dimensions lies, one frame a chunk; `None` where it was never written.
pub(super) fn chunk_place(dataset: &hdf5::Dataset, index: u64) -> Result<Option<ChunkPlace>, hdf5::Error> {
    if dataset.ndim() != 3 || !dataset.is_chunked() {
        return Err("the frames are not a chunked dataset of three dimensions".into());
    }
    let offset: [hsize_t; 3] = [index, 0, 0];
    let mut place = ChunkPlace {
        offset: HADDR_UNDEF,
        bytes: 0,
        filters_skipped: 0,
    };
    sync(|| {
        // SAFETY: the dataset is open, chunked and of three dimensions, as `offset`; the others are out-parameters.
        check(unsafe {
            H5Dget_chunk_info_by_coord(
                dataset.id(),
                offset.as_ptr(),
                &mut place.filters_skipped,
                &mut place.offset,
                &mut place.bytes,
            )
        })
    })?;
    Ok((place.offset != HADDR_UNDEF && place.bytes > 0).then_some(place))
}

/// Bytes that an unprivileged process may still write to the file system of `path`.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    super::io::free_bytes(&std::fs::File::open(path)?)
}

/// The library's error stack as an error when `value` is its failure code.
fn check<T: PartialOrd + From<i8>>(value: T) -> Result<T, hdf5::Error> {
    if value >= T::from(0) {
        return Ok(value);
    }
    Err(hdf5::Error::query().unwrap_or_else(|error| error))
}
