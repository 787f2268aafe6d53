//! `undelete`

use anyhow::{Result, bail};
use engine::maintain;
use engine::monitor::Monitor;
use engine::protocol::View;
use engine::repo::Repository;
use engine::snapshot::{self, SnapshotRecord};
use serde_json::json;

use crate::args::UndeleteArgs;
use crate::cmd::list;
use crate::context::Context;
use crate::exit::Status;
use crate::ui::{human, json as message};

pub fn run(context: &Context, args: &UndeleteArgs) -> Result<Status> {
    let repo = context.open()?;
    let view = repo.load_view(&*context.ui)?;
    let forgotten = forgotten(context, &repo, view)?;
    let mut out = context.ui.out();
    if args.snapshots.is_empty() {
        if context.ui.json() {
            for record in &forgotten {
                out.json(&message::snapshot(record))?;
            }
        } else {
            let rows: Vec<Vec<String>> = forgotten.iter().map(list::row).collect();
            out.bytes(human::table(&list::HEADING, &rows).as_bytes())?;
            out.line(format_args!("{} can be taken back", human::plural(forgotten.len() as u64, "snapshot")))?;
        }
        out.flush()?;
        return Ok(context.status());
    }
    if let Some(reference) = args.snapshots.iter().find(|reference| reference.starts_with("latest")) {
        bail!("'{reference}': name the snapshots to take back by their ids; 'undelete' without an id lists them");
    }
    let names = args.snapshots.iter().map(|r| Ok(snapshot::resolve(&forgotten, r)?.name)).collect::<Result<Vec<_>>>()?;
    let undeleted = maintain::undelete(&repo, &names, &*context.ui)?;
    if undeleted.in_doubt {
        context.ui.problem(engine::monitor::Problem {
            subject: "undelete".into(),
            message:
                "a prune is under way and may have decided before this: once it has ended, see whether 'snapshots' lists them"
                    .into(),
        });
    }
    if context.ui.json() {
        let ids: Vec<String> = undeleted.restored.iter().map(|name| name.id.to_string()).collect();
        out.json(&json!({
            "message_type": "summary", "command": "undelete", "snapshots": ids, "in_doubt": undeleted.in_doubt,
        }))?;
    } else if !context.ui.quiet() {
        out.line(format_args!("took back {}", human::plural(undeleted.restored.len() as u64, "snapshot")))?;
    }
    out.flush()?;
    Ok(context.status())
}

/// Snapshots that are to be forgotten and still there.
fn forgotten(context: &Context, repo: &Repository, mut view: View) -> Result<Vec<SnapshotRecord>> {
    view.snapshots = std::mem::take(&mut view.forgotten);
    Ok(snapshot::list(repo, &view, &*context.ui)?)
}
