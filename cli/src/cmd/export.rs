//! `export`

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use compat::export::{self, Choice, ExportOptions, Losses, Mode, Sealing, SetOutcome, SetResult};
use compat::import::Archive;
use compat::pgp::{Compression, Encryption, Keyring, Recipiency, gnupg_public_keys, gnupg_secret_keys};
use compat::store::{Store, Target};
use engine::error::Error;
use engine::monitor::Monitor as _;
use serde_json::{Value, json};

use crate::archive;
use crate::args::ExportDuplicityArgs;
use crate::context::Context;
use crate::exit::{Status, advise};
use crate::parse::{SnapshotPath, snapshot_path};
use crate::password::{self, Password, Source};
use crate::ui::{Ui, human, json};

pub fn run(context: &Context, args: &ExportDuplicityArgs) -> Result<Status> {
    let started = Instant::now();
    let (snapshots, target) = arguments(context, &args.arguments)?;
    let options = options(args)?;
    let archive = existing(args, &options, &target)?;
    let reader = context.reader()?;
    let find = |wanted: &SnapshotPath| {
        let record = context.find(&reader, &wanted.reference, &args.filter)?;
        Ok(Choice { record, path: wanted.path.clone() })
    };
    let choices = snapshots.iter().map(find).collect::<Result<Vec<_>>>()?;
    let mut tally = Tally::default();
    let mut done = |outcome: &SetOutcome| {
        tally.add(outcome);
        print(&context.ui, outcome).map_err(|error| Error::Invalid(format!("{error:#}")))
    };
    export::run(&reader, &*target, &archive, &choices, &options, &*context.ui, &mut done)?;
    tally.print(&context.ui, &options, started)?;
    Ok(context.status())
}

/// The last one is the target.
fn arguments(context: &Context, arguments: &[OsString]) -> Result<(Vec<SnapshotPath>, Arc<dyn Target>)> {
    let Some((url, snapshots)) = arguments.split_last() else { return Err(anyhow!("nothing to export")) };
    let text = url.to_str().ok_or_else(|| anyhow!("the URL is not UTF-8"))?;
    let target = archive::target(context, text)?;
    let snapshots = snapshots.iter().map(|s| snapshot_path(s).map_err(|why| anyhow!("'{}': {why}", s.display())));
    Ok((snapshots.collect::<Result<_>>()?, target))
}

/// What is at the target, to be read.
fn existing(args: &ExportDuplicityArgs, options: &ExportOptions, target: &Arc<dyn Target>) -> Result<Archive> {
    let store: Arc<dyn Store> = Arc::clone(target) as _;
    let mut keyring = Keyring::new();
    for (file, variable) in [(&args.passphrase_file, "PASSPHRASE"), (&args.sign_passphrase_file, "SIGN_PASSPHRASE")] {
        passphrase(file.as_deref(), variable)?.into_iter().for_each(|phrase| keyring.add_passphrase(phrase.to_vec()));
    }
    archive::add_keys(&mut keyring, &args.secret_key)?;
    keyring.use_gnupg(args.gnupg_home.as_deref());
    Ok(Archive { store, prefixes: options.prefixes.clone(), keyring: Arc::new(keyring), required_signer: None })
}

fn options(args: &ExportDuplicityArgs) -> Result<ExportOptions> {
    let mode = match (args.full, args.incremental) {
        (true, _) => Mode::Full,
        (_, true) => Mode::Incremental,
        _ => Mode::Auto,
    };
    let sealing = match (args.no_encryption, args.no_compression) {
        (true, true) => Sealing::Plain,
        (true, false) => Sealing::Gzip,
        (false, _) => Sealing::OpenPgp(Box::new(encryption(args)?)),
    };
    let prefixes = args.prefixes.prefixes();
    let (host, source) = (args.hostname.clone(), args.localdir.clone().map(OsString::into_vec));
    Ok(ExportOptions { mode, sealing, volume_size: args.volsize << 20, prefixes, host, source, dry_run: args.dry_run })
}

fn encryption(args: &ExportDuplicityArgs) -> Result<Encryption> {
    let home = args.gnupg_home.as_deref();
    let read = |file: &std::path::PathBuf| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let files = args.secret_key.iter().map(read).collect::<Result<Vec<_>>>()?;
    let passphrase = passphrase(args.passphrase_file.as_deref(), "PASSPHRASE")?;
    let keys = args.encrypt_key.iter().map(|key| (key, Recipiency::Named));
    let keys: Vec<_> = keys.chain(args.hidden_encrypt_key.iter().map(|key| (key, Recipiency::Hidden))).collect();
    let mut encryption = match (keys.is_empty(), &passphrase) {
        (false, _) => Encryption::public(),
        (true, Some(passphrase)) => Encryption::symmetric(passphrase),
        (true, None) => {
            let hint = "set PASSPHRASE, give --passphrase-file or --encrypt-key, or --no-encryption";
            return Err(advise("no pass phrase and no key to encrypt with", hint));
        }
    };
    for (key, recipiency) in keys {
        let given = files.iter().any(|file| encryption.add_recipient(file, key, recipiency).is_ok());
        if !given {
            encryption.add_recipient(&gnupg_public_keys(home, key), key, recipiency)?;
        }
    }
    if let Some(key) = &args.sign_key {
        let own = self::passphrase(args.sign_passphrase_file.as_deref(), "SIGN_PASSPHRASE")?;
        let phrases: Vec<&[u8]> = own.iter().chain(&passphrase).map(|phrase| &phrase[..]).collect();
        let given = files.iter().any(|file| encryption.sign_with(file, key, &phrases).is_ok());
        if !given {
            let exported = gnupg_secret_keys(home, key, phrases.first().copied().unwrap_or_default());
            encryption.sign_with(&exported, key, &phrases)?;
        }
    }
    let compression = if args.no_compression { Compression::None } else { Compression::Zip };
    Ok(encryption.compression(compression))
}

fn passphrase(file: Option<&Path>, variable: &str) -> Result<Option<Password>> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    let source = file.map(|file| Source::File(file.to_owned())).or_else(|| value.map(Source::Value));
    source.map(password::read_passphrase).transpose()
}

/// How many sets ended how.
#[derive(Default)]
struct Tally {
    exported: u64,
    present: u64,
    planned: u64,
    volumes: u64,
    stored: u64,
}

impl Tally {
    fn add(&mut self, outcome: &SetOutcome) {
        match &outcome.result {
            SetResult::Exported(totals, _) => {
                self.exported += 1;
                self.volumes += totals.volumes;
                self.stored += totals.stored_bytes;
            }
            SetResult::Present => self.present += 1,
            SetResult::Planned => self.planned += 1,
        }
    }

    fn print(&self, ui: &Ui, options: &ExportOptions, started: Instant) -> Result<()> {
        let mut out = ui.out();
        if ui.json() {
            out.json(&json!({
                "message_type": "summary", "command": "export", "dry_run": options.dry_run,
                "sets_exported": self.exported, "sets_present": self.present, "sets_planned": self.planned,
                "volumes": self.volumes, "bytes_written": self.stored,
                "total_duration": started.elapsed().as_secs_f64(), "problems": ui.problem_count(),
            }))?;
        } else if !ui.quiet() {
            let sets = |n| human::plural(n, "backup");
            out.line(format_args!(""))?;
            if options.dry_run {
                out.line(format_args!("would export {}", sets(self.planned)))?;
            } else {
                let (volumes, stored) = (human::plural(self.volumes, "volume"), human::bytes(self.stored));
                let time = human::duration(started.elapsed());
                out.line(format_args!("exported {} in {time}: {volumes}, {stored}", sets(self.exported)))?;
            }
            if self.present > 0 {
                out.line(format_args!("in the archive already: {}", sets(self.present)))?;
            }
        }
        out.flush()
    }
}

fn print(ui: &Ui, outcome: &SetOutcome) -> Result<()> {
    let time = outcome.record.snapshot.time;
    let kind = if outcome.times.is_full() { "full" } else { "incremental" };
    if let SetResult::Exported(_, losses) = &outcome.result {
        name_losses(ui, losses);
    }
    let mut out = ui.out();
    if ui.json() {
        let word = match outcome.result {
            SetResult::Exported(..) => "exported",
            SetResult::Present => "present",
            SetResult::Planned => "planned",
        };
        let id = outcome.record.name.id.to_string();
        let mut value = json!({
            "message_type": "set", "time": json::time(time), "type": kind, "result": word, "snapshot_id": id,
        });
        if let SetResult::Exported(totals, losses) = &outcome.result {
            value["new"] = totals.new.into();
            value["changed"] = totals.changed.into();
            value["deleted"] = totals.deleted.into();
            value["volumes"] = totals.volumes.into();
            value["bytes_written"] = totals.stored_bytes.into();
            value["lost"] = lost(losses);
        }
        out.json(&value)?;
    } else if !ui.quiet() {
        let id = outcome.record.name.id.short();
        let what = match &outcome.result {
            SetResult::Exported(totals, _) => format!(
                "snapshot {id}: {} new, {} changed, {} deleted, {}",
                totals.new,
                totals.changed,
                totals.deleted,
                human::bytes(totals.stored_bytes)
            ),
            SetResult::Present => format!("snapshot {id}: in the archive already"),
            SetResult::Planned => format!("snapshot {id}: would be exported"),
        };
        out.line(format_args!("{} {kind:<11}  {what}", human::time(time)))?;
    }
    out.flush()
}

fn lost(losses: &Losses) -> Value {
    let mut value = json!({});
    for (loss, count, paths) in losses.iter() {
        value[loss.key()] = json!({ "count": count, "first": paths });
    }
    value
}

/// What the archive cannot hold.
fn name_losses(ui: &Ui, losses: &Losses) {
    for (loss, count, paths) in losses.iter() {
        let more = if count > paths.len() as u64 { ", ..." } else { "" };
        ui.note(format!("duplicity cannot hold all: {count} {loss} ({}{more})", paths.join(", ")));
    }
}
