//! Hashes of files as `run.json` names them, read past the page cache: what the disk has, not what memory remembers.

use super::KeepError;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of one read.
const BLOCK_BYTES: usize = 4 << 20;
/// What `O_DIRECT` wants memory, offsets and lengths to be multiples of.
const ALIGNMENT: usize = 4096;

/// A hash that is being made.
pub enum Digest {
    /// BLAKE3
    Blake3(Box<blake3::Hasher>),
    /// SHA-256
    Sha256(Sha256),
}

impl Digest {
    /// A hash of this kind; `file` is for the message.
    pub fn of(algorithm: &str, file: &str) -> Result<Digest, KeepError> {
        match algorithm {
            "blake3" => Ok(Digest::Blake3(Box::default())),
            "sha256" => Ok(Digest::Sha256(Sha256::new())),
            other => Err(KeepError::Algorithm {
                file: file.into(),
                algorithm: other.into(),
            }),
        }
    }

    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Digest::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Digest::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The hash, hexadecimal.
    pub fn finish(self) -> String {
        match self {
            Digest::Blake3(hasher) => hasher.finalize().to_hex().to_string(),
            Digest::Sha256(hasher) => crate::storage::hex(&hasher.finalize()),
        }
    }
}

/// Reads a whole file block by block, from the disk where the file system lets us. Blocks but the last have 4 MiB.
pub fn read_blocks<E: From<io::Error>>(path: &Path, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<u64, E> {
    let (mut file, mut direct) = open(path)?;
    let mut memory = vec![0; BLOCK_BYTES + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let block = &mut memory[start..start + BLOCK_BYTES];
    let mut at = 0;
    loop {
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match file.read_at(&mut block[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What is left of a file after an odd number of bytes cannot be asked for directly.
                Err(error) if direct && error.raw_os_error() == Some(libc::EINVAL) => {
                    (file, direct) = (File::open(path)?, false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if filled == 0 {
            return Ok(at);
        }
        each(&block[..filled])?;
        at += filled as u64;
    }
}

fn open(path: &Path) -> io::Result<(File, bool)> {
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    match direct {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((File::open(path)?, false)),
        Err(error) => Err(error),
    }
}

/// Size and hash of a file.
pub fn hash_file(path: &Path, algorithm: &str) -> Result<(u64, String), KeepError> {
    let mut digest = Digest::of(algorithm, &path.display().to_string())?;
    let bytes = read_blocks(path, |block| {
        digest.update(block);
        Ok::<_, io::Error>(())
    })
    .map_err(|source| KeepError::io("reading", path, source))?;
    Ok((bytes, digest.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_every_length_are_read_whole() {
        let path = std::env::temp_dir().join(format!("fluxline-digest-{}", std::process::id()));
        for length in [0, 1, 4095, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 5000] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let expected = blake3::hash(&bytes).to_hex().to_string();
            assert_eq!(hash_file(&path, "blake3").unwrap(), (length as u64, expected));
            let sha = crate::storage::hex(&Sha256::digest(&bytes));
            assert_eq!(hash_file(&path, "sha256").unwrap().1, sha);
        }
        assert!(hash_file(&path, "md5").is_err());
        std::fs::remove_file(path).unwrap();
    }
}
