//! The direction of dependencies: what a module of the engine may use, and what no crate may bring in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules of the engine from the ground up; each may use those of its own layer and below.
const LAYERS: [(&str, &[&str]); 9] = [
    ("ground", &["buffer", "error", "monitor", "parallel"]),
    ("values", &["id", "path", "entry"]),
    ("encoding", &["chunker", "codec", "crypto", "format"]),
    ("protocol", &["protocol"]),
    ("edges", &["backend", "fs", "names", "probe"]),
    ("structures", &["pack", "index", "parity"]),
    ("repository", &["repo"]),
    ("model", &["catalog", "snapshot", "content"]),
    ("operations", &["backup", "copy", "repair", "restore", "check", "maintain"]),
];

/// Upward on purpose: the engine's one error type wraps the store's, and a source of entries fails with it.
const ALLOWED: [(&str, &str); 1] = [("error", "backend")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for item in std::fs::read_dir(dir).expect("readable source folder") {
        let path = item.expect("readable source folder").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn engine_modules_use_only_layers_below() {
    let rank: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(i, (_, modules))| modules.iter().map(move |m| (*m, i))).collect();
    let src = root().join("engine/src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).expect("below src");
        let first = relative.iter().next().expect("a name").to_string_lossy().replace(".rs", "");
        if first == "lib" {
            continue;
        }
        let own = *rank.get(first.as_str()).unwrap_or_else(|| panic!("module {first} has no layer: add it to this test"));
        let text = std::fs::read_to_string(&file).expect("UTF-8");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if relative.components().any(|c| c.as_os_str().to_string_lossy().starts_with("tests")) {
            continue;
        }
        for part in code.split("crate::").skip(1) {
            let used: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let upward = rank.get(used.as_str()).is_some_and(|used| *used > own);
            if upward && !ALLOWED.contains(&(first.as_str(), used.as_str())) {
                wrong.push(format!("{}: {first} uses {used}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "modules that reach up:\n{}", wrong.join("\n"));
}

/// Crates that a package brings into a build, without what comes through the packages in `prune` alone.
fn dependencies(package: &str, prune: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none"]);
    for pruned in prune {
        command.args(["--prune", pruned]);
    }
    let out = command.current_dir(root()).output().expect("cargo tree runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let tree = String::from_utf8(out.stdout).expect("UTF-8");
    let names: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(names.contains("thiserror"), "no tree of {package}");
    names
}

#[test]
fn libraries_know_no_async_runtime_terminal_or_command_line() {
    // The one place where an async runtime is at home; and sequoia has anyhow's errors.
    let (s3, pgp) = ("deduplicity-s3", "sequoia-openpgp");
    for (package, prune) in
        [("deduplicity-engine", &[][..]), ("deduplicity-compat", &[pgp]), ("deduplicity-transport", &[s3, pgp])]
    {
        let names = dependencies(package, prune);
        for crate_name in ["tokio", "clap", "indicatif", "anyhow", "aws-config", "async-std"] {
            assert!(!names.contains(crate_name), "{package} depends on {crate_name}");
        }
    }
}

#[test]
fn only_the_transports_know_servers() {
    for package in ["deduplicity-engine", "deduplicity-compat"] {
        let names = dependencies(package, &[]);
        for crate_name in ["deduplicity-s3", "deduplicity-transport", "ureq", "suppaftp", "rustls"] {
            assert!(!names.contains(crate_name), "{package} depends on {crate_name}");
        }
    }
}
