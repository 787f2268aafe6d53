//! How the program ends: exit codes, and the one line that says why.

use std::fmt;
use std::process::ExitCode;

use engine::backend::ErrorKind;
use engine::error::Error;

use crate::ui::{self, Ui};

/// The operation failed.
pub const FAILED: u8 = 1;
/// It was done, but for single files.
pub const INCOMPLETE: u8 = 3;
/// There is no repository.
pub const NO_REPOSITORY: u8 = 10;
/// The password is wrong.
pub const WRONG_PASSWORD: u8 = 12;
/// The user asked to stop.
pub const INTERRUPTED: u8 = 130;

const ROLLBACK_HINT: &str = "find out who changed the store, and keep it as it is until then; if you know why (you restored a copy of it), \
                             --accept-rollback takes the repository as it is from now on";

const EXPECTED_HINT: &str =
    "compare --expect-head with what 'backup' printed last, and find out who changed the store if it is right";

/// How an operation ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All of it was done.
    Complete,
    /// Single files or objects could not be dealt with; they were reported.
    Incomplete,
}

/// A failure of the command line's own, with advice.
#[derive(Debug)]
pub struct Advice {
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advice {}

/// A failure with advice on what to do about it.
pub fn advise(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Advice { message: message.into(), hint: hint.into() }.into()
}

/// Reports how the command ended.
pub fn conclude(ui: &Ui, result: anyhow::Result<Status>) -> ExitCode {
    let error = match result {
        Ok(Status::Complete) => return ExitCode::SUCCESS,
        Ok(Status::Incomplete) => return INCOMPLETE.into(),
        Err(error) => error,
    };
    // Whoever read our output has seen enough.
    if ui::output_closed() {
        return ExitCode::SUCCESS;
    }
    let (code, hint) = judge(&error);
    // A signal may show as some other failure of what it broke off.
    let code = if ui.was_cancelled() { INTERRUPTED } else { code };
    let message = if code == INTERRUPTED { "interrupted".to_owned() } else { one_line(&said(&error)) };
    ui.failure(code, &message, hint.as_deref().filter(|_| code != INTERRUPTED));
    code.into()
}

/// Exit code and advice.
fn judge(error: &anyhow::Error) -> (u8, Option<String>) {
    if let Some(advice) = error.downcast_ref::<Advice>() {
        return (FAILED, Some(advice.hint.clone()));
    }
    let hint = |text: &str| Some(text.to_owned());
    match error.downcast_ref::<Error>() {
        Some(Error::NoRepository { .. }) => (NO_REPOSITORY, None),
        Some(Error::WrongPassword { .. }) => (WRONG_PASSWORD, None),
        Some(Error::Interrupted) => (INTERRUPTED, None),
        Some(Error::Rollback(_)) => (FAILED, hint(ROLLBACK_HINT)),
        Some(Error::UnexpectedHead(_)) => (FAILED, hint(EXPECTED_HINT)),
        Some(Error::Damaged { .. } | Error::MissingBlob { .. }) => {
            (FAILED, hint("'deduplicity check' tells what else is damaged"))
        }
        Some(Error::Backend(e)) if e.kind == ErrorKind::Denied && e.location.starts_with("s3") => {
            (FAILED, hint("check the credentials and what they permit, --s3-region and --s3-endpoint"))
        }
        _ => (FAILED, None),
    }
}

/// The error and what is behind it, each of which is said once: many messages hold their cause already.
fn said(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// Without line breaks and control characters.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|l| !l.is_empty()).collect();
    engine::path::display_bytes(words.join(" ").as_bytes())
}

/// Arguments that make no sense, or a request for help.
pub fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind as Kind;
    if matches!(error.kind(), Kind::DisplayHelp | Kind::DisplayVersion) {
        // A closed output is nobody's loss.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == Kind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return FAILED.into();
    }
    let text = error.render().to_string();
    let mut blocks = text.split("\n\n");
    let message = one_line(blocks.next().unwrap_or_default().trim_start_matches("error: "));
    let tips: Vec<String> = blocks.filter_map(|b| b.trim().strip_prefix("tip: ").map(one_line)).collect();
    let hint =
        if tips.is_empty() { "'deduplicity COMMAND --help' tells how to use a command".to_owned() } else { tips.join("; ") };
    ui::report_failure(std::env::args_os().any(|a| a == "--json"), FAILED, &message, Some(&hint));
    FAILED.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        let code = |error: Error| judge(&anyhow::Error::from(error).context("while trying")).0;
        assert_eq!(code(Error::NoRepository { location: "x".into() }), NO_REPOSITORY);
        assert_eq!(code(Error::WrongPassword { slots: 1 }), WRONG_PASSWORD);
        assert_eq!(code(Error::Interrupted), INTERRUPTED);
        assert_eq!(code(Error::Invalid("x".into())), FAILED);
    }

    #[test]
    fn causes_are_said_once() {
        let full = std::io::Error::other("no space left at \"x\"");
        let error = Error::Io { path: "f".into(), action: "cannot write", source: full };
        let all = anyhow::Error::from(error).context("while trying");
        assert_eq!(said(&all), "while trying: f: cannot write: no space left at \"x\"");
        assert_eq!(said(&anyhow::Error::msg("why").context("no")), "no: why");
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(one_line("a:\n  b\r\n\n c\x1b"), "a: b c\\u{1b}");
    }
}
