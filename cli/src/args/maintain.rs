//! Arguments of `forget`, `prune` and `undelete`.

use std::collections::BTreeMap;

use clap::Args;
use engine::maintain::PruneOptions;
use engine::maintain::policy::{GroupBy, Period, Policy, Span};

use super::FilterArgs;
use crate::parse;

#[derive(Args, Debug)]
#[command(after_help = "\
Give the snapshots, or rules: what any rule keeps is kept, of each group of snapshots of the same
host and paths. N is a number or 'unlimited', DURATION is like 2y5m7d3h. Forgotten snapshots
disappear at once; 'undelete' takes that back until a prune has carried it out.

Times are what the machines that made the backups claim. What the seals of earlier prunes show to
be false, and whatever would drop snapshots younger than 48 hours, needs --yes; so does 'latest'. Of
an id at least 4 digits are needed. --host, --tag and --path hold for named snapshots, too.

Examples:
  deduplicity forget 3f2a 77c1
  deduplicity forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --keep-yearly 10 --prune
  deduplicity forget --keep-within 30d --keep-tag keep --host laptop --dry-run")]
pub struct ForgetArgs {
    /// Snapshots to forget
    #[arg(value_name = "SNAPSHOT", conflicts_with = "KeepArgs")]
    pub snapshots: Vec<String>,
    #[command(flatten)]
    pub keep: KeepArgs,
    /// What snapshots of a group have in common: host, paths, tags, in any combination; '' for one group
    #[arg(short, long, value_name = "BY", value_parser = parse::group_by, default_value = "host,paths")]
    pub group_by: GroupBy,
    /// Prune afterwards
    #[arg(long)]
    pub prune: bool,
    /// Do it, however young the snapshots are, and whatever is strange about their times
    #[arg(long)]
    pub yes: bool,
    /// Only tell what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub pruning: PruningArgs,
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Keep rules.
#[derive(Args, Debug, Default)]
#[group(multiple = true)]
#[command(next_help_heading = "Rules")]
pub struct KeepArgs {
    /// Keep the last N snapshots
    #[arg(short = 'l', long, value_name = "N", value_parser = parse::keep_count)]
    pub keep_last: Option<u32>,
    /// Keep the last snapshot of each of the last N hours that have one
    #[arg(short = 'H', long, value_name = "N", value_parser = parse::keep_count)]
    pub keep_hourly: Option<u32>,
    /// The same for days
    #[arg(short = 'd', long, value_name = "N", value_parser = parse::keep_count)]
    pub keep_daily: Option<u32>,
    /// The same for weeks
    #[arg(short = 'w', long, value_name = "N", value_parser = parse::keep_count)]
    pub keep_weekly: Option<u32>,
    /// The same for months
    #[arg(short = 'm', long, value_name = "N", value_parser = parse::keep_count)]
    pub keep_monthly: Option<u32>,
    /// The same for years
    #[arg(short = 'y', long, value_name = "N", value_parser = parse::keep_count)]
    pub keep_yearly: Option<u32>,
    /// Keep what was made within DURATION before the newest snapshot
    #[arg(long, value_name = "DURATION", value_parser = parse::span)]
    pub keep_within: Option<Span>,
    /// Keep the last snapshot of each hour within DURATION before the newest one
    #[arg(long, value_name = "DURATION", value_parser = parse::span)]
    pub keep_within_hourly: Option<Span>,
    /// The same for days
    #[arg(long, value_name = "DURATION", value_parser = parse::span)]
    pub keep_within_daily: Option<Span>,
    /// The same for weeks
    #[arg(long, value_name = "DURATION", value_parser = parse::span)]
    pub keep_within_weekly: Option<Span>,
    /// The same for months
    #[arg(long, value_name = "DURATION", value_parser = parse::span)]
    pub keep_within_monthly: Option<Span>,
    /// The same for years
    #[arg(long, value_name = "DURATION", value_parser = parse::span)]
    pub keep_within_yearly: Option<Span>,
    /// Keep snapshots with this tag, or with all of TAG,TAG; may be given more than once
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
}

impl KeepArgs {
    /// The rules.
    pub fn policy(&self) -> Policy {
        let counts = [self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly];
        let within = [
            self.keep_within,
            self.keep_within_hourly,
            self.keep_within_daily,
            self.keep_within_weekly,
            self.keep_within_monthly,
            self.keep_within_yearly,
        ];
        fn given<T: Copy>(values: [Option<T>; 6]) -> BTreeMap<Period, T> {
            Period::ALL.into_iter().zip(values).filter_map(|(period, value)| Some((period, value?))).collect()
        }
        let tags = self.keep_tag.iter().map(|all| all.split(',').map(str::to_owned).collect()).collect();
        Policy { counts: given(counts), within: given(within), tags }
    }
}

/// How to prune.
#[derive(Args, Debug)]
#[command(next_help_heading = "Pruning")]
pub struct PruningArgs {
    /// Part of the repository that may stay unused: P% or 'unlimited'
    #[arg(long, value_name = "P%", value_parser = parse::unused, default_value = "5%")]
    pub max_unused: Unused,
    /// Copy from packs of at most this size in all: bytes, or with K, M, G, T
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub max_repack_size: Option<u64>,
    /// Wait for no running backup, and delete what it may have stored so far; it stores that again
    #[arg(long)]
    pub now: bool,
    /// From now on store so much parity, from 1% to 100%, and make it for what is there; 0% takes it away, but for keys, configuration and seals
    #[arg(long, value_name = "P%", value_parser = parse::parity)]
    pub parity: Option<u8>,
    /// Trust that no other machine runs maintenance; for stores that cannot tell who was first
    #[arg(long)]
    pub exclusive: bool,
}

/// A share in percent; none is no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unused(pub Option<f64>);

impl PruningArgs {
    /// As the engine takes them.
    pub fn options(&self, dry_run: bool) -> PruneOptions {
        PruneOptions {
            max_unused: self.max_unused.0,
            max_repack: self.max_repack_size,
            now: self.now,
            exclusive: self.exclusive,
            parity: self.parity,
            dry_run,
            ..PruneOptions::default()
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Backups may run meanwhile. A prune that was interrupted is carried on with by the next one, on any
machine.

With parity, a prune also protects packs and index segments against being lost whole: it reads each
of them once for that.

Examples:
  deduplicity prune --dry-run
  deduplicity prune --parity 5%
  deduplicity prune --max-unused 10% --max-repack-size 50G")]
pub struct PruneArgs {
    #[command(flatten)]
    pub pruning: PruningArgs,
    /// Extend the locks on objects now, even if they last long enough
    #[arg(long)]
    pub extend_locks: bool,
    /// Only tell what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  deduplicity undelete            lists what can be taken back
  deduplicity undelete 3f2a")]
pub struct UndeleteArgs {
    /// Snapshots to take back: ids, or the start of them
    #[arg(value_name = "SNAPSHOT")]
    pub snapshots: Vec<String>,
}
