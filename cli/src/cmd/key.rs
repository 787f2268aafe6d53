//! `key list`, `add`, `remove`, `passwd`

use anyhow::{Result, bail};
use engine::crypto::password::DEFAULT_COST;
use engine::format::slot::Note;
use engine::id::ObjectId;
use engine::path::display_bytes;
use engine::repo::{self, Repository};
use serde_json::json;

use crate::args::{KeyCommand, NewKeyArgs};
use crate::context::{self, Context};
use crate::exit::Status;
use crate::ui::{human, json};

pub fn run(context: &Context, command: &KeyCommand) -> Result<Status> {
    let repo = context.open()?;
    repo.check_head(&*context.ui)?;
    match command {
        KeyCommand::List => list(context, &repo)?,
        KeyCommand::Add(args) => {
            let password = Context::new_password(args.new_password_file.as_deref())?;
            let id = repo.add_key(&password, DEFAULT_COST, &note(args, ""))?;
            changed(context, "added", &id)?;
        }
        KeyCommand::Remove { id } => {
            let id = find(&repo, id)?;
            repo.remove_key(&id)?;
            changed(context, "removed", &id)?;
        }
        KeyCommand::Passwd(args) => {
            let old = repo.key_slots()?.into_iter().find(|slot| slot.current);
            let label = old.map(|slot| slot.note.label).unwrap_or_default();
            let password = Context::new_password(args.new_password_file.as_deref())?;
            let id = repo.change_password(&password, DEFAULT_COST, &note(args, &label))?;
            changed(context, "changed", &id)?;
        }
    }
    Ok(context.status())
}

fn note(args: &NewKeyArgs, default_label: &str) -> Note {
    let label = args.label.as_deref().unwrap_or(default_label).to_owned();
    Note { created: repo::now(), origin: context::origin(), label }
}

/// The key whose id begins so.
fn find(repo: &Repository, prefix: &str) -> Result<ObjectId> {
    let ids: Vec<ObjectId> = repo.key_slots()?.into_iter().map(|slot| slot.id).collect();
    let prefix = prefix.to_ascii_lowercase();
    let mut fitting = ids.into_iter().filter(|id| id.to_string().starts_with(&prefix));
    match (fitting.next(), fitting.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => bail!("'{prefix}' fits more than one key: give more digits"),
        _ => bail!("no key has an id that starts with '{prefix}'; 'key list' lists them"),
    }
}

fn list(context: &Context, repo: &Repository) -> Result<()> {
    let slots = repo.key_slots()?;
    let mut out = context.ui.out();
    if context.ui.json() {
        for slot in &slots {
            out.json(&json!({
                "message_type": "key", "id": slot.id.to_string(), "current": slot.current,
                "label": slot.note.label, "origin": slot.note.origin, "created": json::time(slot.note.created),
                "kdf": "argon2id", "memory_kib": slot.cost.memory, "passes": slot.cost.passes, "lanes": slot.cost.lanes,
            }))?;
        }
    } else {
        let rows: Vec<Vec<String>> = slots
            .iter()
            .map(|slot| {
                let mark = if slot.current { "*" } else { " " };
                let text = |text: &str| display_bytes(text.as_bytes());
                let created = human::time(slot.note.created);
                vec![format!("{mark}{}", slot.id.short()), text(&slot.note.origin), created, text(&slot.note.label)]
            })
            .collect();
        out.bytes(human::table(&["ID", "Made by", "Created", "Label"], &rows).as_bytes())?;
    }
    out.flush()
}

fn changed(context: &Context, what: &str, id: &ObjectId) -> Result<()> {
    let mut out = context.ui.out();
    if context.ui.json() {
        out.json(&json!({ "message_type": "key_changed", "action": what, "id": id.to_string() }))?;
    } else if !context.ui.quiet() {
        match what {
            "changed" => out.line(format_args!("changed the password; the key is {} now", id.short()))?,
            _ => out.line(format_args!("{what} key {}", id.short()))?,
        }
    }
    out.flush()
}
