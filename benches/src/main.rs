//! Fluxline's side of the comparisons in `benches/peers.py`, which runs a peer and this program in turn.
//!
//! Every line on stdin is a measurement, its answer is one line on stdout: seconds. What a measurement prepares
//! (programs, buffers, frames) is kept for the next one of the same words, as a peer keeps its own.
//!
//! ```text
//! azimuthal ROWS COLUMNS BATCH [poisson] [bbox|full] [cpu]   per frame: u16 frames, 2000 bins, read in place; with `cpu` behind
//!     it the processor time of all threads
//! floor ROWS COLUMNS [cpu]                     per frame: the same bytes read once from memory by every core
//! slab COLUMNS ANGLES                          per slice: ramp filter and back-projection of 16 slices
//! volume COLUMNS ANGLES                        per slice: the same from sinograms to slices in host memory
//! gridrec COLUMNS ANGLES                       per slice: the same by the Fourier method
//! auto COLUMNS ANGLES                          per slice: the same by the method that `auto` takes
//! sirt|cgls COLUMNS ANGLES                     per slice: ten iterations
//! paganin ROWS COLUMNS                         per projection: phase retrieval, as many at once as there are threads
//! write FOLDER ROWS COLUMNS FRAMES PERCENT     NeXus writer, chunks compressed to PERCENT passed through, on disk
//! pwrite|pwrite4 FOLDER ROWS COLUMNS FRAMES PERCENT  the same bytes by `pwrite` into one file, one thread or four, on disk
//! packed|codec FOLDER ROWS COLUMNS FRAMES PERCENT  NeXus writer that compresses frames to PERCENT; the same by the codec alone on every core
//! read FOLDER ROWS COLUMNS FRAMES PERCENT      the frames of such a run in their order, as stored
//! pread|pread4 FOLDER ROWS COLUMNS FRAMES PERCENT  the same files by `pread`, one thread or four
//!     each with `cpu` behind it: processor time of all threads for each GB
//! compress|decompress FILE BYTES               bitshuffle-LZ4 of the file's elements of so many bytes, one core
//! decoded|fused ROWS COLUMNS BATCH THREADS [unmasked] [cpu]  per frame: compressed u16 frames, decoded and then statistics and
//!     curve, or both at once; gaps that no mask tells of
//! bare ROWS COLUMNS                            one frame: statistics and azimuthal curve, no pipeline
//! spots FILE ROWS COLUMNS dispersion|extended BATCH [cpu]  per frame: strong pixels and spots of an i32 frame
//! ```

mod azimuthal;
mod backproject;
mod codec;
mod floor;
mod fused;
mod spots;
mod writer;

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};

/// A prepared measurement: runs once, answers seconds.
type Measurement = Box<dyn FnMut() -> Result<f64>>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut prepared: HashMap<String, Measurement> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if !prepared.contains_key(&line) {
            prepared.insert(line.clone(), prepare(&line)?);
        }
        if let Some(measurement) = prepared.get_mut(&line) {
            let seconds = measurement()?;
            println!("{seconds:.9}");
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}

fn prepare(line: &str) -> Result<Measurement> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| -> Result<usize> {
        let word = words.get(index).ok_or_else(|| format!("`{line}` has too few words"))?;
        Ok(word.parse()?)
    };
    match words.first().copied() {
        Some("azimuthal") => azimuthal::integrate(number(1)?, number(2)?, number(3)?, &words[4..]),
        Some("floor") => floor::read(number(1)? * number(2)? * 2, words.contains(&"cpu")),
        Some(kind @ ("decoded" | "fused")) => fused::reduce(
            kind == "fused",
            number(1)?,
            number(2)?,
            number(3)?,
            number(4)?,
            &words[5..],
        ),
        Some("bare") => azimuthal::bare(number(1)?, number(2)?),
        Some("spots") => {
            let file = words.get(1).copied().unwrap_or_default();
            spots::find(
                file,
                number(2)?,
                number(3)?,
                words.get(4) == Some(&"extended"),
                number(5)?,
                words.contains(&"cpu"),
            )
        }
        Some("slab") => backproject::slab(number(1)?, number(2)?),
        Some("volume") => backproject::volume(number(1)?, number(2)?),
        Some("gridrec") => backproject::gridrec(number(1)?, number(2)?),
        Some("auto") => backproject::auto(number(1)?, number(2)?),
        Some(kind @ ("sirt" | "cgls")) => backproject::iterative(kind, number(1)?, number(2)?),
        Some("paganin") => backproject::paganin(number(1)?, number(2)?),
        Some(kind @ ("compress" | "decompress")) => {
            let file = words.get(1).copied().unwrap_or_default();
            codec::prepare(kind == "compress", file, number(2)?)
        }
        Some("write" | "pwrite" | "pwrite4" | "packed" | "codec" | "read" | "pread" | "pread4") => {
            let way = writer::Way::of(words[0]).ok_or("no such way")?;
            let folder = words.get(1).copied().unwrap_or(".");
            let size = (number(2)?, number(3)?);
            let cpu = words.get(6) == Some(&"cpu");
            writer::prepare(way, folder.into(), size, number(4)?, number(5)?, cpu)
        }
        _ => Err(format!("unknown measurement `{line}`").into()),
    }
}
