//! What happens to a run after its files are closed: it is found (`catalogue`), copied to the central store and read back
//! (`push`, `destination`), looked after (`scrub`), told to the facility (`announce`), and deleted when that is proven to
//! be safe (`retention`, `delete`).
//!
//! `life`, `schedule`, `retention` and `clock::Trust` are state machines without clock, thread or I/O. `keeper` is the
//! threads around them; everything else does one thing when it is asked to.

mod access;
mod announce;
mod catalogue;
mod clock;
mod config;
mod delete;
mod destination;
mod digest;
mod error;
mod keeper;
mod life;
mod metrics;
mod push;
mod retention;
mod schedule;
mod scrub;
mod status;

pub use catalogue::{Catalogue, Found, Query};
pub use clock::{Clock, TEST_CLOCK, follows_server};
pub use config::{AccessConfig, AnnounceConfig, PushConfig, RetentionConfig};
pub use delete::{Candidate, Plan};
pub use error::KeepError;
pub use keeper::{Keeper, Settings};
pub use life::{Life, State};
pub use metrics::KeepMetrics;
pub use retention::{Forecast, Level, Room};
pub use status::{KeepStatus, PushStatus, StateCount};

/// Folder of the store that holds what the keeper knows: the catalogue, uploads that are on their way, locks.
pub const KEEP_FOLDER: &str = ".fluxline";

/// Checks the sections of the configuration that are the keeper's.
pub fn check_config(config: &crate::config::Config) -> Result<(), crate::config::ConfigError> {
    config::check(&config.push, &config.retention, &config.access, &config.announce)
}
