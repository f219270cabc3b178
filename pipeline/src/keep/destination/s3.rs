//! A bucket of an S3 service.
//!
//! A file goes in parts; which parts have arrived is noted in the store, so that a push that was interrupted, even by the
//! end of this program, goes on behind the last of them. An object appears when its parts are put together and not
//! before: that is the service's own `.part` and rename. `run.json` is sent last, when everything else has been read
//! back, so that a reader who waits for it never sees a copy that is not right.

use super::super::KeepError;
use super::super::config::PushConfig;
use super::super::digest::Digest;
use super::{Destination, Pace, damaged};
use crate::storage::FileRecord;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectStoreExt, PutPayload, RetryConfig};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Most parts that S3 takes, with room to spare.
const PARTS_MAX: u64 = 9000;
/// How often a service is asked to put the same parts together before they are sent anew.
const REFUSED_MAX: u32 = 5;
/// S3's code for parts that are not those that were named.
const OTHER_PARTS: &str = "<Code>InvalidPart";
/// Bytes that are read back in one request.
const READ_BYTES: u64 = 16 << 20;

/// The bucket.
pub struct Bucket {
    place: String,
    prefix: String,
    client: AmazonS3,
    runtime: Runtime,
    part_bytes: u64,
    uploads: PathBuf,
}

/// An upload on its way.
#[derive(Default, Serialize, Deserialize)]
struct Upload {
    key: String,
    hash: String,
    id: String,
    part_bytes: u64,
    parts: Vec<String>,
    /// how often the service did not put the parts together
    #[serde(default)]
    refused: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
}

impl Bucket {
    /// The bucket `place` (`BUCKET/PREFIX`); `uploads` is the folder for uploads on their way, `base` the one of the
    /// configuration.
    pub fn open(place: &str, config: &PushConfig, uploads: PathBuf, base: &Path) -> Result<Self, KeepError> {
        // Another part of the program may have chosen already; one choice is as good as the other.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let options = ClientOptions::new()
            .with_timeout(Duration::from_secs_f64(config.timeout_s))
            .with_connect_timeout(Duration::from_secs_f64(config.timeout_s.min(10.0)))
            .with_allow_http(config.endpoint.as_deref().is_some_and(|url| url.starts_with("http://")));
        // The schedule tries again; here only a request that was lost on the way is sent twice.
        let retry = RetryConfig {
            max_retries: 1,
            retry_timeout: Duration::from_secs_f64(config.timeout_s),
            backoff: BackoffConfig::default(),
        };
        let mut builder = match &config.credentials {
            Some(path) => {
                let path = crate::config::resolve(base, path);
                let text = fs::read_to_string(&path).map_err(|source| KeepError::io("reading", &path, source))?;
                // The text is secret: the message names the file only.
                let keys: Credentials = toml::from_str(&text).map_err(|_| {
                    let path = path.display();
                    KeepError::Config(format!(
                        "{path}: expected access_key_id = \"...\" and secret_access_key = \"...\""
                    ))
                })?;
                AmazonS3Builder::new()
                    .with_access_key_id(keys.access_key_id)
                    .with_secret_access_key(keys.secret_access_key)
            }
            None => AmazonS3Builder::from_env(),
        };
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let client = builder
            .with_region(&config.region)
            .with_bucket_name(bucket)
            .with_client_options(options)
            .with_retry(retry)
            .build()
            .map_err(|error| KeepError::Config(format!("push.to = \"s3://{place}\": {error}")))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fluxline-s3")
            .enable_all()
            .build()
            .map_err(|source| KeepError::io("starting the threads of", &uploads, source))?;
        fs::create_dir_all(&uploads).map_err(|source| KeepError::io("creating", &uploads, source))?;
        Ok(Self {
            place: format!("s3://{place}"),
            prefix: prefix.trim_matches('/').to_string(),
            client,
            runtime,
            part_bytes: config.part_mib << 20,
            uploads,
        })
    }

    fn key(&self, key: &str) -> Key {
        Key::from(format!("{}/{key}", self.prefix))
    }

    fn away(&self, error: impl std::fmt::Display) -> KeepError {
        KeepError::Away {
            destination: self.place.clone(),
            reason: error.to_string(),
        }
    }

    /// Where the upload of `key` is noted.
    fn note(&self, key: &str) -> PathBuf {
        self.uploads
            .join(format!("{}.json", blake3::hash(key.as_bytes()).to_hex()))
    }

    /// The upload of this very file that an earlier try began.
    fn begun(&self, key: &str, record: &FileRecord) -> Option<Upload> {
        let upload: Upload = serde_json::from_slice(&fs::read(self.note(key)).ok()?).ok()?;
        (upload.key == key && upload.hash == record.hash && upload.part_bytes > 0).then_some(upload)
    }

    fn remember(&self, upload: &Upload) -> Result<(), KeepError> {
        let (path, draft) = (self.note(&upload.key), self.note(&format!("{}.part", upload.key)));
        let text = serde_json::to_vec(upload).unwrap_or_default();
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| KeepError::io("writing", &path, source))
    }

    /// Sends part by part; when the service no longer knows the upload, the next try begins anew.
    fn send_parts(&self, key: &str, file: &Path, record: &FileRecord, pace: Pace<'_>) -> Result<(), KeepError> {
        let at = self.key(key);
        let open = File::open(file).map_err(|source| KeepError::io("reading", file, source))?;
        let mut upload = match self.begun(key, record) {
            Some(upload) => upload,
            None => {
                let id = self.runtime.block_on(self.client.create_multipart(&at));
                Upload {
                    key: key.into(),
                    hash: record.hash.clone(),
                    id: id.map_err(|error| self.away(error))?,
                    part_bytes: self.part_bytes.max(record.bytes.div_ceil(PARTS_MAX)),
                    parts: Vec::new(),
                    refused: 0,
                }
            }
        };
        self.remember(&upload)?;
        let mut digest = Digest::of(&record.algorithm, &record.name)?;
        let count = record.bytes.div_ceil(upload.part_bytes) as usize;
        for index in 0..count {
            let start = index as u64 * upload.part_bytes;
            let length = upload.part_bytes.min(record.bytes - start) as usize;
            let mut part = vec![0; length];
            open.read_exact_at(&mut part, start)
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => damaged(file, record, start, ""),
                    _ => KeepError::io("reading", file, error),
                })?;
            digest.update(&part);
            if index < upload.parts.len() {
                continue;
            }
            pace(length)?;
            let sent = self.client.put_part(&at, &upload.id, index, PutPayload::from(part));
            let sent = self.runtime.block_on(sent).map_err(|error| {
                if matches!(error, object_store::Error::NotFound { .. }) {
                    let _ = fs::remove_file(self.note(key));
                }
                self.away(error)
            })?;
            upload.parts.push(sent.content_id);
            self.remember(&upload)?;
        }
        let hash = digest.finish();
        if hash != record.hash {
            let _ = self.runtime.block_on(self.client.abort_multipart(&at, &upload.id));
            let _ = fs::remove_file(self.note(key));
            return Err(damaged(file, record, record.bytes, &hash));
        }
        let parts = upload
            .parts
            .iter()
            .map(|id| PartId { content_id: id.clone() })
            .collect();
        let done = self
            .runtime
            .block_on(self.client.complete_multipart(&at, &upload.id, parts));
        match done {
            // Whether the object is right the reading back says.
            Ok(_) => {
                let _ = fs::remove_file(self.note(key));
                Ok(())
            }
            Err(object_store::Error::NotFound { source, .. }) => {
                let _ = fs::remove_file(self.note(key));
                Err(self.away(source))
            }
            // Unless the bucket says that it has others, the parts are there, and this may be asked again: nothing is sent a
            // second time.
            Err(error) => {
                upload.refused += 1;
                if upload.refused < REFUSED_MAX && !error.to_string().contains(OTHER_PARTS) {
                    self.remember(&upload)?;
                } else {
                    // Not to leave parts behind that nobody puts together; a bucket's life cycle does it where this fails.
                    let _ = self.runtime.block_on(self.client.abort_multipart(&at, &upload.id));
                    let _ = fs::remove_file(self.note(key));
                }
                Err(self.away(error))
            }
        }
    }
}

impl Destination for Bucket {
    fn name(&self) -> String {
        self.place.clone()
    }

    fn ready(&self) -> Result<(), KeepError> {
        Ok(())
    }

    fn send(&self, key: &str, file: &Path, record: &FileRecord, pace: Pace<'_>) -> Result<(), KeepError> {
        if self.size(key)? == Some(record.bytes) {
            return Ok(());
        }
        let bytes = fs::metadata(file)
            .map_err(|source| KeepError::io("reading", file, source))?
            .len();
        if bytes != record.bytes {
            return Err(damaged(file, record, bytes, ""));
        }
        if record.bytes > self.part_bytes {
            return self.send_parts(key, file, record, pace);
        }
        let all = fs::read(file).map_err(|source| KeepError::io("reading", file, source))?;
        let mut digest = Digest::of(&record.algorithm, &record.name)?;
        digest.update(&all);
        let hash = digest.finish();
        if hash != record.hash {
            return Err(damaged(file, record, all.len() as u64, &hash));
        }
        pace(all.len())?;
        let at = self.key(key);
        let put = self.client.put(&at, PutPayload::from(all));
        self.runtime.block_on(put).map(|_| ()).map_err(|error| self.away(error))
    }

    fn hash(&self, key: &str, algorithm: &str, pace: Pace<'_>) -> Result<Option<(u64, String)>, KeepError> {
        let Some(bytes) = self.size(key)? else { return Ok(None) };
        let at = self.key(key);
        let mut digest = Digest::of(algorithm, key)?;
        let mut start = 0;
        while start < bytes {
            pace(0)?;
            let end = (start + READ_BYTES).min(bytes);
            let range = self.runtime.block_on(self.client.get_range(&at, start..end));
            let range = range.map_err(|error| self.away(error))?;
            if range.is_empty() {
                return Err(self.away("an answer without bytes"));
            }
            digest.update(&range);
            start += range.len() as u64;
        }
        Ok(Some((bytes, digest.finish())))
    }

    fn publish(&self, _key: &str) -> Result<(), KeepError> {
        Ok(())
    }

    fn size(&self, key: &str) -> Result<Option<u64>, KeepError> {
        let at = self.key(key);
        match self.runtime.block_on(self.client.head(&at)) {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.away(error)),
        }
    }

    fn remove(&self, key: &str) -> Result<(), KeepError> {
        let _ = fs::remove_file(self.note(key));
        let at = self.key(key);
        match self.runtime.block_on(self.client.delete(&at)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.away(error)),
        }
    }

    fn fetch(&self, key: &str, into: &mut File) -> Result<(), KeepError> {
        let bytes = self.size(key)?.ok_or_else(|| self.away(format!("there is no {key}")))?;
        let (at, mut start) = (self.key(key), 0);
        while start < bytes {
            let end = (start + READ_BYTES).min(bytes);
            let range = self.runtime.block_on(self.client.get_range(&at, start..end));
            let range = range.map_err(|error| self.away(error))?;
            if range.is_empty() {
                return Err(self.away("an answer without bytes"));
            }
            let written = into.write_all(&range);
            written.map_err(|source| KeepError::io("writing the copy of", Path::new(key), source))?;
            start += range.len() as u64;
        }
        Ok(())
    }
}
