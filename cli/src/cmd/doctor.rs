//! `doctor`

use std::time::Duration;

use anyhow::{Result, bail};
use engine::error::Error;
use engine::monitor::Monitor;
use engine::probe::{self, Finding, Latency, ProbeOptions, ProbeReport, Promise};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Status;
use crate::ui::{Out, human};

/// A clock that is wrong by more is worth a word: S3 servers refuse requests from 15 minutes on.
const CLOCK_TOLERANCE: f64 = 60.0;

pub fn run(context: &Context) -> Result<Status> {
    let backend = context.backend()?;
    // A disk that is not mounted is no store to be made here.
    backend.size(&engine::repo::names::config()).map(drop).or_else(|e| match e.kind {
        engine::backend::ErrorKind::NotFound => Ok(()),
        _ => Err(Error::from(e)),
    })?;
    context.ui.stage("trying out the store");
    let report = probe::run(&*backend, &ProbeOptions::default(), &*context.ui)?;
    // A permission that only this question needs may be missing.
    let locks = backend.can_lock().ok();
    let mut out = context.ui.out();
    if context.ui.json() {
        let mut value = as_json(&backend.location(), &report);
        value["object_lock"] = locks.into();
        out.json(&value)?;
    } else {
        print(&mut out, &backend.location(), &report)?;
        let answer = match locks {
            Some(true) => "yes: 'init --lock-retention' uses it",
            Some(false) => "no",
            None => "the store does not tell",
        };
        out.line(format_args!("  locking objects against deletion: {answer}"))?;
    }
    out.flush()?;
    match (report.is_usable(), report.findings.iter().all(|f| f.broken.is_none()) && report.left_behind.is_empty()) {
        (true, true) => Ok(Status::Complete),
        (true, false) => Ok(Status::Incomplete),
        (false, _) => bail!("this store cannot hold a repository: see above"),
    }
}

fn name(promise: Promise) -> &'static str {
    match promise {
        Promise::Read => "read",
        Promise::Ranges => "ranges",
        Promise::List => "list",
        Promise::Create => "exclusive_create",
        Promise::Large => "large_objects",
        Promise::Delete => "delete",
    }
}

/// What a promise means.
fn words(promise: Promise) -> &'static str {
    match promise {
        Promise::Read => "what was stored reads back at once",
        Promise::Ranges => "parts of objects can be read",
        Promise::List => "listings are up to date",
        Promise::Create => "no object is ever replaced, even in a race",
        Promise::Large => "objects as large as packs are stored",
        Promise::Delete => "objects can be deleted",
    }
}

/// What follows for the user.
fn consequences(report: &ProbeReport) -> Vec<(&'static str, String)> {
    let usable = report.is_usable();
    let yes_or_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let reclaim = match (usable && report.keeps(Promise::Delete), report.keeps(Promise::Create)) {
        (false, _) => "no".to_owned(),
        (true, true) => "yes, from any machine".to_owned(),
        (true, false) => "only ever from one machine, one run at a time".to_owned(),
    };
    vec![
        ("backup, restore and check", yes_or_no(usable)),
        ("backups of several machines at once", yes_or_no(usable)),
        ("removing old backups and reclaiming space", reclaim),
    ]
}

fn print(out: &mut Out, location: &str, report: &ProbeReport) -> Result<()> {
    out.line(format_args!("{location}"))?;
    for Finding { promise, broken } in &report.findings {
        match broken {
            None => out.line(format_args!("  ok      {}", words(*promise)))?,
            Some(why) => out.line(format_args!("  FAILED  {}: {why}", words(*promise)))?,
        }
    }
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    let call = |l: Latency| format!("{} (at most {})", ms(l.median), ms(l.worst));
    out.line(format_args!("  store 4 KiB {}, read {}", call(report.create), call(report.read)))?;
    out.line(format_args!("  list {}, delete {}", call(report.list), call(report.delete)))?;
    if let Some((size, stored, read)) = report.large {
        let (stored, read) = (rate(size, stored), rate(size, read));
        out.line(format_args!("  one object of {}: stored at {stored}, read at {read}", human::bytes(size)))?;
    }
    match report.clock_ahead {
        Some(ahead) if ahead.abs() > CLOCK_TOLERANCE => {
            let (by, way) = (ahead.abs().round(), if ahead > 0.0 { "behind" } else { "ahead of" });
            out.line(format_args!("  this machine's clock is {by} seconds {way} the store's: set it right"))?;
        }
        Some(_) => out.line(format_args!("  the store's clock and this machine's agree"))?,
        None => {}
    }
    for key in &report.left_behind {
        out.line(format_args!("  left behind, since it could not be deleted: {key}"))?;
    }
    out.line(format_args!("what works here:"))?;
    for (what, answer) in consequences(report) {
        out.line(format_args!("  {what}: {answer}"))?;
    }
    Ok(())
}

fn rate(size: u64, time: Duration) -> String {
    let rate = u128::from(size) * 1_000_000 / time.as_micros().max(1);
    format!("{}/s", human::bytes(u64::try_from(rate).unwrap_or(u64::MAX)))
}

fn as_json(location: &str, report: &ProbeReport) -> Value {
    let promises: Vec<Value> = report
        .findings
        .iter()
        .map(|f| json!({ "promise": name(f.promise), "kept": f.broken.is_none(), "reason": f.broken }))
        .collect();
    let latency = |l: Latency| json!({ "median": l.median.as_secs_f64(), "worst": l.worst.as_secs_f64() });
    json!({
        "message_type": "doctor", "repository": location, "usable": report.is_usable(), "promises": promises,
        "create": latency(report.create), "read": latency(report.read),
        "list": latency(report.list), "delete": latency(report.delete),
        "large_size": report.large.map(|l| l.0),
        "large_stored": report.large.map(|l| l.1.as_secs_f64()), "large_read": report.large.map(|l| l.2.as_secs_f64()),
        "clock_ahead": report.clock_ahead,
        "left_behind": report.left_behind.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
