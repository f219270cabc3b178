//! A detector's stream without a detector: frames of any source, sent as a DECTRIS detector sends them, with seeded faults.

use super::config::Version;
use super::encode::{SeriesEncoder, unique_name};
use super::error::DectrisError;
use super::message::{SeriesKey, Short};
use super::push::Publisher;
use crate::memory::FrameRing;
use crate::source::{Arrival, FrameSource, SourceError, WhenFull};
use frame::{Compression, FrameHeader, StreamDescription};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is sent, and what goes wrong on the way.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// address to bind, for example `tcp://*:31001`
    pub address: String,
    /// version of the stream
    pub version: Version,
    /// series one after the other
    pub series: u64,
    /// time between two series
    pub pause: Duration,
    /// how long to wait for a receiver, each time
    pub timeout: Duration,
    /// let images go that find no receiver, as a detector whose buffer is full
    pub drop: bool,
    /// images that are sent before the start
    pub late_start: u64,
    /// images after which a series is aborted, without an end
    pub abort_after: Option<u64>,
    /// leave out the message that ends a series
    pub no_end: bool,
    /// images of the series before that are sent in the midst of each series
    pub stray: u64,
    /// share of images that are cut short or have a forged size
    pub corrupt: f64,
    /// seed of everything that is random
    pub seed: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct EmulatorReport {
    /// series begun
    pub series: u64,
    /// images sent, with duplicates, without strays
    pub images: u64,
    /// images let go
    pub dropped: u64,
    /// images of a series before
    pub stray: u64,
    /// messages cut short: no receiver can tell which image it was
    pub truncated: u64,
    /// images whose size is forged
    pub forged: u64,
    /// bytes of images
    pub bytes: u64,
    /// from the first start to the last message
    pub seconds: f64,
}

/// A detector that is none.
pub struct Emulator {
    config: EmulatorConfig,
    publisher: Publisher,
    random: Pcg64Mcg,
    report: EmulatorReport,
}

/// Messages that wait in the emulator for a receiver.
const QUEUE_MESSAGES: i32 = 16;

impl Emulator {
    /// Binds.
    pub fn bind(config: EmulatorConfig) -> Result<Self, SourceError> {
        if !(0.0..=1.0).contains(&config.corrupt) {
            return Err(SourceError::Parameter {
                key: "corrupt",
                value: config.corrupt.to_string(),
                expected: "a share of images from 0 to 1".into(),
            });
        }
        let publisher = Publisher::bind(&config.address, QUEUE_MESSAGES, config.timeout)?;
        Ok(Self {
            random: Pcg64Mcg::seed_from_u64(config.seed),
            config,
            publisher,
            report: EmulatorReport::default(),
        })
    }

    /// The address that was bound, for example with a port that the system chose.
    pub fn address(&self) -> String {
        self.publisher.address()
    }

    /// Sends every series; `shown` is told the number of images sent and may end it by saying false.
    pub fn send(
        &mut self,
        source: &mut dyn FrameSource,
        ring: &FrameRing,
        mut shown: impl FnMut(u64) -> bool,
    ) -> Result<EmulatorReport, SourceError> {
        let started = Instant::now();
        let mut last = None;
        for number in 1..=self.config.series {
            if number > 1 {
                std::thread::sleep(self.config.pause);
            }
            let going_on = self.one_series(number, &mut last, source, ring, &mut shown)?;
            self.report.seconds = started.elapsed().as_secs_f64();
            if !going_on {
                break;
            }
        }
        Ok(self.report)
    }

    fn one_series(
        &mut self,
        number: u64,
        last: &mut Option<SeriesEncoder>,
        source: &mut dyn FrameSource,
        ring: &FrameRing,
        shown: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, SourceError> {
        source.arm(number as u32)?;
        let stream = source.stream().clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unique = match self.config.version {
            Version::V1 => Short::new(""),
            _ => unique_name(now.as_nanos() / 1000, number),
        };
        let series = SeriesEncoder::new(
            SeriesKey { id: number, unique },
            self.config.version,
            &date(now.as_secs()),
            &stream,
        );
        let (mut sent, mut strays, mut begun) = (0, self.config.stray, false);
        self.report.series += 1;
        loop {
            if !begun && sent >= self.config.late_start {
                begun = true;
                self.deliver(series.start(&stream), true)?;
            }
            if self.config.abort_after.is_some_and(|images| sent >= images) {
                break;
            }
            match source.next(ring, WhenFull::Wait)? {
                Arrival::Frame(lease) => {
                    if let Some(old) = last.as_ref().filter(|_| strays > 0 && begun) {
                        strays -= 1;
                        self.report.stray += 1;
                        self.deliver(old.image(lease.header(), lease.payload(), &stream), true)?;
                    }
                    let parts = series.image(lease.header(), lease.payload(), &stream);
                    self.image(parts, lease.header(), &stream)?;
                    sent += 1;
                }
                Arrival::End => break,
                Arrival::Dropped { .. } | Arrival::Idle => {}
            }
            if !shown(self.report.images) {
                return Ok(false);
            }
        }
        if !begun {
            self.deliver(series.start(&stream), true)?;
        }
        if self.config.abort_after.is_none() && !self.config.no_end {
            self.deliver(series.end(), true)?;
        }
        *last = Some(series);
        Ok(true)
    }

    fn happens(&mut self, share: f64) -> bool {
        ((self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64) < share
    }

    fn image(
        &mut self,
        mut parts: Vec<Vec<u8>>,
        header: &FrameHeader,
        stream: &StreamDescription,
    ) -> Result<(), SourceError> {
        let bytes: usize = parts.iter().map(Vec::len).sum();
        if self.happens(self.config.corrupt) {
            let payload_bytes = header.payload_bytes.get() as usize;
            let bits = stream.frame_bytes() as u64 + 8;
            // In V2 the payload ends the one part; in V1 it is the third.
            let payload = match parts.len() {
                1 => parts
                    .last_mut()
                    .and_then(|part| part.len().checked_sub(payload_bytes).map(|at| &mut part[at..])),
                _ => parts.get_mut(2).map(Vec::as_mut_slice),
            };
            let packed = header.compression != Compression::None as u8;
            match payload.and_then(|payload| payload.first_chunk_mut::<8>()) {
                Some(size) if packed && self.random.next_u64() & 1 == 0 => {
                    *size = bits.to_be_bytes();
                    self.report.forged += 1;
                }
                _ => {
                    if let Some(part) = parts.first_mut() {
                        part.truncate(part.len() / 2);
                    }
                    self.report.truncated += 1;
                }
            }
        }
        let wait = !self.config.drop;
        if self.deliver(parts, wait)? {
            self.report.images += 1;
            self.report.bytes += bytes as u64;
        } else {
            self.report.dropped += 1;
        }
        Ok(())
    }

    /// Sends the parts of a message; false if nobody takes it and it need not wait.
    fn deliver(&self, parts: Vec<Vec<u8>>, wait: bool) -> Result<bool, SourceError> {
        let until = Instant::now() + self.config.timeout;
        let patience = Duration::from_millis(if wait { 100 } else { 0 });
        while !self.publisher.ready(patience) {
            if !wait {
                return Ok(false);
            }
            if Instant::now() > until {
                let reason = "nobody takes the stream".into();
                let address = self.config.address.clone();
                return Err(DectrisError::Socket { address, reason }.into());
            }
        }
        self.publisher.send(parts)?;
        Ok(true)
    }
}

/// A date as RFC 3339 has it, UTC.
fn date(unix_s: u64) -> String {
    let (days, seconds) = ((unix_s / 86_400) as i64, unix_s % 86_400);
    // Days to a date: the civil calendar in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(super::date(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::date(1_709_822_611), "2024-03-07T14:43:31Z");
        assert_eq!(super::date(951_782_400), "2000-02-29T00:00:00Z");
    }
}
