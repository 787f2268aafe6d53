//! Scripts as people have them around duplicity, run unchanged with `duplicity` being a link to our program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use deduplicity_tests::dropin::{Place, change_tree, make_tree, next_second, seconds};
use deduplicity_tests::env::Env;
use deduplicity_tests::seaweed::Seaweed;
use deduplicity_tests::tree::{assert_same, describe};

/// The key of real archives, its pass phrase, and the gpg home that has it; `None`, with a word about it, where either is absent.
#[allow(clippy::print_stdout, reason = "says why nothing was tested")]
fn gnupg(place: &Place) -> Option<(String, String)> {
    let keys = match std::env::var_os("DEDUPLICITY_FIXTURES") {
        Some(dir) => PathBuf::from(dir).join("keys"),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|d| d.join("shared/duplicity/fixtures/keys"))
            .find(|d| d.is_dir())?,
    };
    let home = place.path("gnupg");
    fs::create_dir(&home).expect("a folder");
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("a mode");
    let gpg = |args: &[&str]| {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--no-tty", "--pinentry-mode", "loopback"]).args(args).env("GNUPGHOME", &home);
        gpg.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()
    };
    let phrase = keys.join("rsa.passphrase").display().to_string();
    let Some(imported) = gpg(&["--passphrase-file", &phrase, "--import", &keys.join("rsa.sec.asc").display().to_string()]) else {
        println!("skipped: gpg is not installed");
        return None;
    };
    assert!(imported.status.success());
    let listed = gpg(&["--with-colons", "--list-keys"]).expect("gpg runs");
    let text = String::from_utf8(listed.stdout).expect("UTF-8");
    let print = text.lines().find_map(|line| line.strip_prefix("fpr:")).and_then(|rest| rest.split(':').nth(8)).expect("a key");
    Some((print.to_owned(), fs::read_to_string(&phrase).expect("a pass phrase").trim_end().to_owned()))
}

/// Runs a script with `duplicity` on the path being a link to our program.
fn script(place: &Place, text: &str) -> (i32, String) {
    let bin = place.path("bin");
    if !bin.exists() {
        fs::create_dir(&bin).expect("a folder");
        symlink(Env::program(), bin.join("duplicity")).expect("a link");
    }
    fs::write(place.path("script.sh"), text).expect("a script");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("/bin/sh");
    command.arg("-e").arg(place.path("script.sh")).current_dir(place.path("")).env_clear();
    command.envs([("PATH", path.as_str()), ("TZ", "UTC")]).env("HOME", place.path("home")).env("GNUPGHOME", place.path("gnupg"));
    let output = command.envs(place.variables.iter().map(|(k, v)| (k, v))).stdin(Stdio::null()).output().expect("a shell");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap_or(-1), said)
}

fn good(place: &Place, text: &str) -> String {
    let (code, said) = script(place, text);
    assert_eq!(code, 0, "{text}\n{said}");
    said
}

fn server(place: &mut Place) -> Option<(Arc<Seaweed>, String)> {
    let server = Seaweed::shared()?;
    let bucket = server.new_bucket();
    let options = Seaweed::options(server.address(), &bucket, "");
    let (access, secret) = options.credentials.expect("credentials");
    place.variables.extend([
        ("AWS_ENDPOINT_URL", format!("http://{}", server.address())),
        ("AWS_ACCESS_KEY_ID", access),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]);
    Some((server, bucket))
}

#[test]
fn a_nightly_backup_and_the_restore_of_a_folder() {
    let mut place = Place::empty();
    let Some((_server, bucket)) = server(&mut place) else { return };
    let Some((print, phrase)) = gnupg(&place) else { return };
    place.variables.retain(|(name, _)| *name != "PASSPHRASE");
    place.variables.push(("PASSPHRASE", phrase));
    let src = place.path("src");
    make_tree(&src);
    // Ids of all lengths, as scripts have them.
    for digits in [8, 16, 40] {
        let key = &print[print.len() - digits..];
        let src = src.display();
        let nightly = format!(
            "duplicity --verbosity 4 --full-if-older-than 30D --encrypt-key={key} --sign-key={key} --s3-use-new-style --s3-use-rrs \
             --exclude={src}/gone --exclude={src}/ord {src} s3+http://{bucket}\n"
        );
        let said = good(&place, &nightly);
        assert!(said.contains("\nErrors 0\n"), "{said}");
        let restore = format!(
            "rm -rf restored\nduplicity --encrypt-key={key} --sign-key={key} --file-to-restore a s3+http://{bucket} restored\n"
        );
        good(&place, &restore);
        assert_same(&seconds(describe(&place.path("src/a"))), &seconds(describe(&place.path("restored"))));
        next_second();
        change_tree_once(&place, digits);
    }
    let status = good(&place, &format!("duplicity collection-status s3+http://{bucket}\n"));
    assert!(status.contains("Number of contained backup sets: 3"), "{status}");
    // Somebody else's signature is none.
    let (code, said) = script(&place, &format!("duplicity --sign-key=0123456789ABCDEF s3+http://{bucket} other\n"));
    assert_eq!(code, 22, "{said}");
}

fn change_tree_once(place: &Place, digits: usize) {
    if digits == 8 {
        change_tree(&place.path("src"));
    } else {
        fs::write(place.path("src/a/small"), format!("{digits}")).expect("a file");
    }
}

/// As duply calls it: the command behind a pile of options, verbosity glued, a list of files, pre-check, purge and cleanup.
#[test]
fn in_the_manner_of_duply() {
    let place = Place::empty();
    make_tree(&place.path("src"));
    fs::write(place.path("exclude"), "- **/ord\n- **/gone\n").expect("a list");
    let (src, url) = (place.path("src").display().to_string(), place.url("archive"));
    let text = format!(
        "export PASSPHRASE=secret SIGN_PASSPHRASE=secret FTP_PASSWORD=\n\
         duplicity --version | grep -q '^duplicity [0-9]'\n\
         COMMON=\"--name duply_home --verbosity 4 --volsize 50 --archive-dir {cache} --allow-source-mismatch\"\n\
         duplicity $COMMON --full-if-older-than 1M --exclude-filelist {exclude} {src} {url}\n\
         duplicity verify $COMMON --compare-data --exclude-filelist {exclude} {url} {src}\n\
         duplicity collection-status $COMMON {url} | grep -q 'primary backup chain with matching signature chain'\n\
         duplicity list-current-files $COMMON -t now {url} | grep -q ' a/small$'\n\
         duplicity restore $COMMON -t now {url} out\n\
         duplicity remove-older-than 6M $COMMON --force {url}\n\
         duplicity remove-all-but-n-full 2 $COMMON --force {url}\n\
         duplicity cleanup $COMMON --force {url}\n",
        cache = place.path("cache").display(),
        exclude = place.path("exclude").display(),
    );
    good(&place, &text);
    assert!(place.path("out/a/small").exists() && !place.path("out/ord").exists() && place.path("out/ord-1").exists());
    assert!(place.path("cache/duply_home").is_dir());
}

/// As backupninja calls it: includes first, everything else excluded from the root, output and exit code looked at.
#[test]
fn in_the_manner_of_backupninja() {
    let place = Place::empty();
    make_tree(&place.path("src"));
    let (src, url) = (place.path("src").display().to_string(), place.url("archive"));
    let run = format!(
        "export PASSPHRASE=secret TMPDIR=/tmp\n\
         output=$(duplicity cleanup --no-print-statistics --force {url} 2>&1)\n\
         output=$(duplicity --no-print-statistics --full-if-older-than 30D --volsize 25 \
         --exclude '{src}/a/deep' --include '{src}/a' --include '{src}/big' --exclude '**' / {url} 2>&1) || exit 9\n\
         duplicity remove-older-than 60D --no-print-statistics --force {url}\n"
    );
    good(&place, &run);
    next_second();
    good(&place, &run);
    good(&place, &format!("PASSPHRASE=secret duplicity {url} out\n"));
    let root = place.path("out").join(src.trim_start_matches('/'));
    assert!(root.join("a/small").exists() && root.join("big").exists());
    assert!(!root.join("a/deep").exists() && !root.join("ord-1").exists());
}

/// As duplicity-backup.sh calls it: a log file that is grepped, a storage class, statistics by line.
#[test]
fn in_the_manner_of_duplicity_backup_sh() {
    let place = Place::empty();
    make_tree(&place.path("src"));
    let (src, url) = (place.path("src").display().to_string(), place.url("archive"));
    let text = format!(
        "export PASSPHRASE=secret\n\
         LOG=backup.log\n\
         duplicity full --s3-use-new-style --s3-european-buckets -v3 --asynchronous-upload --exclude={src}/ord {src} {url} >> $LOG 2>&1\n\
         grep -q '^Errors 0$' $LOG\n\
         size=$(sed -n 's/^TotalDestinationSizeChange \\([0-9]*\\) .*/\\1/p' $LOG)\n\
         test \"$size\" -gt 0\n\
         duplicity verify --s3-use-new-style -v4 --exclude={src}/ord {url} {src} >> $LOG 2>&1\n\
         duplicity list-current-files --s3-use-new-style {url} | grep -q big\n\
         duplicity --s3-use-new-style --file-to-restore big --restore-time now {url} one\n\
         cmp one {src}/big\n"
    );
    good(&place, &text);
    let log = fs::read_to_string(place.path("backup.log")).expect("a log");
    assert!(log.contains("Last full backup date: none"), "{log}");
}
