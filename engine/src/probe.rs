//! Probe: what a store really does, found out by doing it.
//!
//! Stores differ in what they promise, and some take a condition and overwrite all the same. Nothing here is inferred from
//! a name or a version: each promise that the repository rests on is tried with objects of random names below `probe/`,
//! which belong to no repository and are taken away again.

mod report;
#[cfg(test)]
mod tests;

use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

pub use report::{Finding, Latency, ProbeOptions, ProbeReport, Promise};

use crate::backend::{Backend, BackendError, ErrorKind, ObjectKey};
use crate::crypto::random_bytes;
use crate::error::{Error, Result};
use crate::id::to_hex;
use crate::monitor::{Monitor, lock};

/// Where probes put their objects.
const FOLDER: &str = "probe/";
/// Writers that try to take the same name at once.
const WRITERS: u8 = 8;
/// Size of the small objects in bytes.
const SMALL: usize = 4096;

/// Tries out everything. The store must be there ([`Backend::prepare`]); what it holds is left alone.
///
/// # Errors
///
/// If not even one object can be stored: then nothing is known. [`Error::Interrupted`] if the monitor says so. What a store
/// does wrong is a finding and no error.
pub fn run(backend: &dyn Backend, options: &ProbeOptions, monitor: &dyn Monitor) -> Result<ProbeReport> {
    let probe = Probe::new(backend, Some(monitor));
    let report = probe.all(options);
    let left_behind = probe.clean();
    Ok(ProbeReport { left_behind, ..report? })
}

/// Whether `create` of this store never replaces an object: what the store knows already, or else what is found out now, by
/// eight writers of one name. The answer is kept in the store: [`Backend::create_is_exclusive`].
///
/// Tells nothing about servers of a cluster that do not know of each other yet.
///
/// # Errors
///
/// If the store cannot be asked, or does not delete what was stored: then nothing is known.
pub fn create_is_exclusive(backend: &dyn Backend) -> Result<bool> {
    if backend.create_is_exclusive() {
        return Ok(true);
    }
    let probe = Probe::new(backend, None);
    let found = probe.race();
    let left = probe.clean();
    let exclusive = match found {
        Ok(()) => true,
        Err(Broken::Promise(_)) => false,
        Err(Broken::Call(error)) => return Err(error.into()),
    };
    if let Some(key) = left.first() {
        return Err(Error::Invalid(format!("{}: {key}: cannot be deleted; the store was being tried out", backend.location())));
    }
    backend.assume_exclusive(exclusive);
    Ok(exclusive)
}

/// Why a promise counts as broken.
enum Broken {
    /// The store did something else.
    Promise(String),
    /// A call failed.
    Call(BackendError),
}

impl From<BackendError> for Broken {
    fn from(error: BackendError) -> Self {
        Self::Call(error)
    }
}

type Outcome = Result<(), Broken>;

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Broken::Promise(otherwise())) }
}

/// Durations of each kind of call.
#[derive(Default)]
struct Times {
    create: Vec<Duration>,
    read: Vec<Duration>,
    list: Vec<Duration>,
    delete: Vec<Duration>,
}

struct Probe<'a> {
    backend: &'a dyn Backend,
    monitor: Option<&'a dyn Monitor>,
    /// Part of all names of this probe.
    name: String,
    /// What may be in the store.
    made: Mutex<Vec<ObjectKey>>,
}

fn timed<T>(times: &mut Vec<Duration>, call: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = call();
    times.push(start.elapsed());
    value
}

fn latency(mut times: Vec<Duration>) -> Latency {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Latency { median, worst: times.last().copied().unwrap_or_default() }
}

impl<'a> Probe<'a> {
    fn new(backend: &'a dyn Backend, monitor: Option<&'a dyn Monitor>) -> Self {
        Self { backend, monitor, name: to_hex(&random_bytes::<16>()), made: Mutex::default() }
    }

    /// A new name, noted as something to take away.
    fn key(&self, what: &str) -> ObjectKey {
        let key = ObjectKey::new(format!("{FOLDER}{}-{what}", self.name)).expect("names made here follow the rules");
        lock(&self.made).push(key.clone());
        key
    }

    fn go_on(&self) -> Result<()> {
        if self.monitor.is_some_and(Monitor::cancelled) { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn all(&self, options: &ProbeOptions) -> Result<ProbeReport> {
        let mut report = ProbeReport::default();
        let (first, before) = (self.key("first"), SystemTime::now());
        self.backend.create(&first, body(0, SMALL))?;
        report.clock_ahead = self.clock(&first, before);
        let mut found: Vec<(Promise, Outcome)> = Vec::new();
        found.push((Promise::Ranges, self.ranges(&first)));
        let mut times = Times::default();
        let mut worst: [(Promise, Outcome); 3] = [(Promise::Read, Ok(())), (Promise::List, Ok(())), (Promise::Delete, Ok(()))];
        for round in 0..options.rounds {
            self.go_on()?;
            self.round(round, &mut times, &mut worst);
        }
        found.extend(worst);
        self.go_on()?;
        found.push((Promise::Large, self.large(options.large, &mut report)));
        self.go_on()?;
        let race = self.race();
        if matches!(race, Ok(()) | Err(Broken::Promise(_))) {
            self.backend.assume_exclusive(race.is_ok());
        }
        found.push((Promise::Create, race));
        report.findings = Promise::ALL.iter().filter_map(|p| finding(*p, &found)).collect();
        let Times { create, read, list, delete } = times;
        (report.create, report.read) = (latency(create), latency(read));
        (report.list, report.delete) = (latency(list), latency(delete));
        Ok(report)
    }

    /// Seconds between this machine's clock and the time that the store gives for an object stored after `before`.
    fn clock(&self, key: &ObjectKey, before: SystemTime) -> Option<f64> {
        let after = SystemTime::now();
        let stored = self.backend.stored_at(key).ok()??;
        let signed = |from: SystemTime| match stored.duration_since(from) {
            Ok(ahead) => ahead.as_secs_f64(),
            Err(behind) => -behind.duration().as_secs_f64(),
        };
        // Whole seconds are all that some stores tell, rounded down.
        let (most, least) = (signed(before) + 1.0, signed(after));
        Some(if most < 0.0 { most } else { least.max(0.0) })
    }

    /// Store, list, read, delete, list. The first failure of each kind stays.
    fn round(&self, number: usize, times: &mut Times, worst: &mut [(Promise, Outcome); 3]) {
        let [(_, read), (_, list), (_, delete)] = worst;
        let keep = |known: &mut Outcome, now: Outcome| {
            if known.is_ok() {
                *known = now;
            }
        };
        let (key, body) = (self.key(&number.to_string()), body(number, SMALL));
        if let Err(error) = timed(&mut times.create, || self.backend.create(&key, body.clone())) {
            return keep(read, Err(error.into()));
        }
        let listed = timed(&mut times.list, || self.listed(&key));
        keep(
            list,
            listed.and_then(|size| {
                ensure(size.is_some(), || format!("round {}: a new object was missing from the listing", number + 1))?;
                ensure(size == Some(SMALL as u64), || "the listing gives a wrong size".to_owned())
            }),
        );
        let found = timed(&mut times.read, || self.backend.read(&key, SMALL as u64));
        keep(read, self.is_same(found, &key, &body));
        if let Err(error) = timed(&mut times.delete, || self.backend.delete(&key)) {
            return keep(delete, Err(error.into()));
        }
        let again = self.backend.read(&key, SMALL as u64);
        let is_gone = again.as_ref().is_err_and(|e| e.kind == ErrorKind::NotFound);
        keep(delete, ensure(is_gone, || "an object could still be read after it was deleted".to_owned()));
        let listed = timed(&mut times.list, || self.listed(&key));
        keep(
            list,
            listed.and_then(|size| {
                ensure(size.is_none(), || format!("round {}: a deleted object was still in the listing", number + 1))
            }),
        );
    }

    fn is_same(&self, found: Result<Bytes, BackendError>, key: &ObjectKey, body: &Bytes) -> Outcome {
        ensure(found? == *body, || "an object was read back with other bytes than were stored".to_owned())?;
        let size = self.backend.size(key)?;
        ensure(size == body.len() as u64, || format!("an object of {} bytes is said to have {size}", body.len()))
    }

    /// The size that a listing gives, if it names the object.
    fn listed(&self, key: &ObjectKey) -> Result<Option<u64>, Broken> {
        let mut size = None;
        self.backend.list(FOLDER, &mut |meta| {
            if meta.key == *key {
                size = Some(meta.size);
            }
        })?;
        Ok(size)
    }

    fn ranges(&self, key: &ObjectKey) -> Outcome {
        let whole = body(0, SMALL);
        for (from, length) in [(0, SMALL), (0, 1), (SMALL - 1, 1), (1000, 2000), (SMALL - 64, 64)] {
            let found = self.backend.read_range(key, from as u64, length)?;
            let right = whole.get(from..from + length).is_some_and(|bytes| found == bytes);
            ensure(right, || format!("{length} bytes from {from} on were not those that were stored there"))?;
        }
        match self.backend.read_range(key, SMALL as u64 - 10, 20) {
            Ok(_) => Err(Broken::Promise("a range beyond the end was answered as if it were whole".to_owned())),
            Err(error) if matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Other) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn large(&self, size: usize, report: &mut ProbeReport) -> Outcome {
        let (key, body) = (self.key("large"), body(77, size));
        let (mut stored, mut read) = (Vec::new(), Vec::new());
        timed(&mut stored, || self.backend.create(&key, body.clone()))?;
        let found = timed(&mut read, || self.backend.read(&key, size as u64));
        self.is_same(found, &key, &body)?;
        let (at, length) = (size / 2, size / 4);
        let part = self.backend.read_range(&key, at as u64, length)?;
        ensure(body.get(at..at + length).is_some_and(|b| part == b), || "a range of it had other bytes".to_owned())?;
        report.large = Some((size as u64, latency(stored).worst, latency(read).worst));
        Ok(())
    }

    /// Eight writers at once, and a ninth one.
    fn race(&self) -> Outcome {
        let key = self.key("race");
        let (start, results) = (Barrier::new(WRITERS.into()), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (key, start, results) = (&key, &start, &results);
                scope.spawn(move || {
                    start.wait();
                    let result = self.backend.create(key, writer_body(writer));
                    lock(results).push((writer, result));
                });
            }
        });
        let results = std::mem::take(&mut *lock(&results));
        let winners: Vec<u8> = results.iter().filter(|(_, result)| result.is_ok()).map(|(writer, _)| *writer).collect();
        for (_, result) in results {
            match result {
                Err(error) if error.kind != ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        let [winner] = winners[..] else {
            return Err(Broken::Promise(format!("of {WRITERS} writers of one name at once, {} succeeded", winners.len())));
        };
        let other = "the object that was stored first was replaced";
        ensure(self.backend.read(&key, SMALL as u64)? == writer_body(winner), || other.to_owned())?;
        match self.backend.create(&key, writer_body(WRITERS)) {
            Ok(()) => return Err(Broken::Promise("a name that was taken could be taken again".to_owned())),
            Err(error) if error.kind != ErrorKind::AlreadyExists => return Err(error.into()),
            Err(_) => {}
        }
        ensure(self.backend.read(&key, SMALL as u64)? == writer_body(winner), || other.to_owned())
    }

    /// Takes away whatever was made; returns what could not be.
    fn clean(&self) -> Vec<ObjectKey> {
        let made = std::mem::take(&mut *lock(&self.made));
        made.into_iter().filter(|key| self.backend.delete(key).is_err() && self.may_exist(key)).collect()
    }

    fn may_exist(&self, key: &ObjectKey) -> bool {
        !matches!(self.backend.size(key), Err(e) if e.kind == ErrorKind::NotFound)
    }
}

fn finding(promise: Promise, found: &[(Promise, Outcome)]) -> Option<Finding> {
    let (_, outcome) = found.iter().find(|(p, _)| *p == promise)?;
    let broken = match outcome {
        Ok(()) => None,
        Err(Broken::Promise(what)) => Some(what.clone()),
        Err(Broken::Call(error)) => Some(error.to_string()),
    };
    Some(Finding { promise, broken })
}

/// Bytes that differ from place to place and from one seed to the next.
fn body(seed: usize, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn writer_body(writer: u8) -> Bytes {
    Bytes::from(vec![writer; 512])
}
