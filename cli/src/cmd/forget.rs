//! `forget`

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};
use engine::maintain::guard::{GroupVerdict, Guard};
use engine::maintain::policy::GroupKey;
use engine::maintain::{self};
use engine::monitor::Monitor;
use engine::path::display_bytes;
use engine::protocol::View;
use engine::repo::{Repository, SnapshotName};
use engine::snapshot::{self, SnapshotRecord};
use serde_json::json;

use crate::args::ForgetArgs;
use crate::calendar::Local;
use crate::cmd::{list, prune};
use crate::context::Context;
use crate::exit::{Status, advise};
use crate::select::Filter;
use crate::ui::{human, json as message};

/// Fewer digits of an id are too easily mistyped.
const MIN_DIGITS: usize = 4;

pub fn run(context: &Context, args: &ForgetArgs) -> Result<Status> {
    let policy = args.keep.policy();
    if args.snapshots.is_empty() && policy.is_empty() {
        return Err(advise("no snapshots and no rules given: nothing is forgotten", "see 'deduplicity forget --help'"));
    }
    let repo = context.open()?;
    let view = repo.load_view(&*context.ui)?;
    let all = snapshot::list(&repo, &view, &*context.ui)?;
    let (names, told) = match args.snapshots.is_empty() {
        true => by_rules(context, args, &repo, &view, all)?,
        false => by_name(args, &repo, &view, &all, &*context.ui)?,
    };
    if !args.dry_run {
        maintain::forget(&repo, &names)?;
    }
    // Not before it is done.
    match told {
        Told::Groups(groups) => print_groups(context, args, &groups, &names, args.dry_run)?,
        Told::Named(records) => print_named(context, args, &names, &records)?,
    }
    if args.prune {
        if args.dry_run && !names.is_empty() && !context.ui.quiet() && !context.ui.json() {
            let mut out = context.ui.out();
            out.line(format_args!("the plan of a prune as things are; forgetting first would free more:"))?;
            out.flush()?;
        }
        prune::prune(context, &repo, args.pruning.options(args.dry_run))?;
    }
    Ok(context.status())
}

/// What is told of what was forgotten.
enum Told {
    Groups(Vec<GroupVerdict>),
    /// The readable ones of the snapshots that were named.
    Named(HashMap<SnapshotName, SnapshotRecord>),
}

/// The snapshots that were named, among those that the filter leaves. Young ones, and `latest`, need `--yes`.
fn by_name(
    args: &ForgetArgs,
    repo: &Repository,
    view: &View,
    all: &[SnapshotRecord],
    monitor: &dyn Monitor,
) -> Result<(Vec<SnapshotName>, Told)> {
    let guard = Guard::load(repo, view, all, monitor)?;
    let filter = Filter::new(&args.filter)?;
    let wanted: Vec<SnapshotRecord> = all.iter().filter(|record| filter.accepts(record)).cloned().collect();
    let (mut names, mut records) = (Vec::new(), HashMap::new());
    for reference in &args.snapshots {
        if reference.starts_with("latest") && !args.yes {
            let text = format!("'{reference}' may be another snapshot by now");
            return Err(advise(text, "give its id, or --yes to forget whichever it is"));
        }
        if reference.len() < MIN_DIGITS && reference.bytes().all(|b| b.is_ascii_hexdigit()) {
            bail!("'{reference}' is too short to forget a snapshot by: give at least {MIN_DIGITS} digits of its id");
        }
        let record = match snapshot::resolve(&wanted, reference) {
            Ok(record) => record,
            Err(error) => {
                // One that cannot be read has a name all the same, and only forgetting it lets maintenance go on.
                names.push(unreadable(view, all, reference).ok_or(error)?);
                continue;
            }
        };
        if guard.is_young(record) && !args.yes {
            let id = record.name.id.short();
            return Err(advise(format!("snapshot {id} is younger than 48 hours"), "--yes forgets it all the same"));
        }
        names.push(record.name);
        records.insert(record.name, record.clone());
    }
    names.sort_unstable();
    names.dedup();
    Ok((names, Told::Named(records)))
}

fn print_named(
    context: &Context,
    args: &ForgetArgs,
    names: &[SnapshotName],
    records: &HashMap<SnapshotName, SnapshotRecord>,
) -> Result<()> {
    let mut out = context.ui.out();
    if context.ui.json() {
        let ids: Vec<String> = names.iter().map(|name| name.id.to_string()).collect();
        out.json(&json!({
            "message_type": "summary", "command": "forget", "dry_run": args.dry_run, "snapshots_forgotten": ids, "groups": [],
        }))?;
    } else if !context.ui.quiet() {
        let verb = if args.dry_run { "would forget" } else { "forgot" };
        for name in names {
            let id = name.id.short();
            match records.get(name).map(|record| &record.snapshot) {
                Some(s) => {
                    let (time, host) = (human::time(s.time), display_bytes(s.host.as_bytes()));
                    out.line(format_args!("{verb} {id}, {time}, host {host}"))?;
                }
                None => out.line(format_args!("{verb} {id}, which cannot be read"))?,
            }
        }
        out.line(format_args!("{verb} {}", human::plural(names.len() as u64, "snapshot")))?;
    }
    out.flush()?;
    Ok(())
}

/// A snapshot that counts and is not among the readable ones.
fn unreadable(view: &View, all: &[SnapshotRecord], reference: &str) -> Option<SnapshotName> {
    let readable: HashSet<SnapshotName> = all.iter().map(|record| record.name).collect();
    let is_id = reference.len() >= 8 && reference.bytes().all(|b| b.is_ascii_hexdigit());
    let fits = |name: &&SnapshotName| name.id.to_string().starts_with(&reference.to_ascii_lowercase());
    let mut found = view.snapshots.iter().filter(|name| is_id && !readable.contains(name)).filter(fits);
    match (found.next(), found.next()) {
        (Some(name), None) => Some(*name),
        _ => None,
    }
}

/// The snapshots that no rule keeps.
fn by_rules(
    context: &Context,
    args: &ForgetArgs,
    repo: &Repository,
    view: &View,
    mut all: Vec<SnapshotRecord>,
) -> Result<(Vec<SnapshotName>, Told)> {
    let filter = Filter::new(&args.filter)?;
    all.retain(|record| filter.accepts(record));
    // The seal that ends their epoch may not name them: no rule may rely on those.
    let unsettled = |record: &SnapshotRecord| Some(record.name.epoch) <= view.unfinished && !view.sealed.contains(&record.name);
    let left_alone = all.extract_if(.., |record| unsettled(record)).count();
    if left_alone > 0 {
        let what = human::plural(left_alone as u64, "snapshot");
        context.ui.note(format!("maintenance is unfinished: {what} of its epoch are neither counted nor forgotten"));
    }
    let guard = Guard::load(repo, view, &all, &*context.ui)?;
    let groups = guard.decide(&args.keep.policy(), args.group_by, all, &Local::system(), args.yes);
    let names: Vec<SnapshotName> = groups.iter().flat_map(|group| group.dropped()).map(|record| record.name).collect();
    let refused: Vec<&String> = groups.iter().flat_map(|group| &group.refused).collect();
    let Some(first) = refused.first() else { return Ok((names, Told::Groups(groups))) };
    print_groups(context, args, &groups, &[], true)?;
    if groups.iter().all(|group| group.refused.is_empty() || args.yes) {
        bail!("{first}; give a rule that keeps something, or name the snapshots to forget");
    }
    let more = if refused.len() > 1 { format!(" (and {} more doubts, see above)", refused.len() - 1) } else { String::new() };
    Err(advise(
        format!("nothing is forgotten: {first}{more}"),
        "if that is as it should be (as after an import), --yes does it; else find out who made these snapshots",
    ))
}

fn print_groups(
    context: &Context,
    args: &ForgetArgs,
    groups: &[GroupVerdict],
    names: &[SnapshotName],
    only_planned: bool,
) -> Result<()> {
    if context.ui.json() {
        print_json(context, args, groups, names)?;
    } else if !context.ui.quiet() {
        for group in groups {
            print_group(context, group, only_planned)?;
        }
    }
    Ok(())
}

fn heading(key: &GroupKey) -> String {
    let mut parts = Vec::new();
    parts.extend(key.host.as_ref().map(|host| format!("host {}", display_bytes(host.as_bytes()))));
    let paths =
        |paths: &std::collections::BTreeSet<Vec<u8>>| paths.iter().map(|path| display_bytes(path)).collect::<Vec<_>>().join(", ");
    parts.extend(key.paths.as_ref().map(|all| format!("paths {}", paths(all))));
    let tags = |tags: &std::collections::BTreeSet<String>| {
        tags.iter().map(|tag| display_bytes(tag.as_bytes())).collect::<Vec<_>>().join(", ")
    };
    parts.extend(key.tags.as_ref().map(|all| format!("tags {}", tags(all))));
    if parts.is_empty() { "all snapshots".to_owned() } else { parts.join("; ") }
}

fn print_group(context: &Context, group: &GroupVerdict, dry_run: bool) -> Result<()> {
    let mut out = context.ui.out();
    out.line(format_args!("{}:", heading(&group.key)))?;
    let dropped: HashSet<SnapshotName> = group.dropped().map(|record| record.name).collect();
    let verb = if dry_run { "would be forgotten" } else { "forgotten" };
    let rows: Vec<Vec<String>> = group
        .verdicts
        .iter()
        .map(|verdict| {
            let reason = match verdict.reasons.is_empty() {
                false => verdict.reasons.join("\n"),
                true if dropped.contains(&verdict.record.name) => verb.to_owned(),
                true => "no rule, but see below".to_owned(),
            };
            let mut row = list::row(&verdict.record);
            row.push(reason);
            row
        })
        .collect();
    let columns: Vec<&str> = list::HEADING.into_iter().chain(["Kept because"]).collect();
    out.bytes(human::table(&columns, &rows).as_bytes())?;
    for refused in &group.refused {
        out.line(format_args!("refused: {refused}"))?;
    }
    let kept = group.verdicts.len() - dropped.len();
    out.line(format_args!("{} kept, {} {verb}", kept, dropped.len()))?;
    out.flush()
}

fn print_json(context: &Context, args: &ForgetArgs, groups: &[GroupVerdict], names: &[SnapshotName]) -> Result<()> {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let groups: Vec<_> = groups
        .iter()
        .map(|group| {
            let dropped: HashSet<SnapshotName> = group.dropped().map(|record| record.name).collect();
            let (remove, keep): (Vec<_>, Vec<_>) = group.verdicts.iter().partition(|v| dropped.contains(&v.record.name));
            json!({
                "host": group.key.host,
                "paths": group.key.paths.as_ref().map(|paths| paths.iter().map(text).collect::<Vec<_>>()),
                "tags": group.key.tags,
                "keep": keep.iter().map(|v| json!({
                    "snapshot": message::snapshot(&v.record), "reasons": v.reasons,
                })).collect::<Vec<_>>(),
                "remove": remove.iter().map(|v| message::snapshot(&v.record)).collect::<Vec<_>>(),
                "refused": group.refused,
            })
        })
        .collect();
    let mut out = context.ui.out();
    let ids: Vec<String> = names.iter().map(|name| name.id.to_string()).collect();
    out.json(&json!({
        "message_type": "summary", "command": "forget", "dry_run": args.dry_run, "snapshots_forgotten": ids, "groups": groups,
    }))?;
    out.flush()
}
