use super::*;

fn now() -> Time {
    Time::new(1_700_000_000).expect("a time")
}

fn parse(line: &str) -> Result<CommandLine, UsageError> {
    super::parse(line.split_whitespace().map(OsString::from), now())
}

fn good(line: &str) -> CommandLine {
    parse(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn action(line: &str) -> Action {
    good(line).action.unwrap_or_else(|| panic!("{line}: no action"))
}

const URL: &str = "file:///a";

#[test]
fn commands_and_their_short_names() {
    use BackupKind::{Auto, Full, Incremental};
    let backup = |kind| Action::Backup(kind, "src".into(), URL.into());
    let cases = [
        ("src file:///a", backup(Auto)),
        ("backup src file:///a", backup(Auto)),
        ("bu src file:///a", backup(Auto)),
        ("full src file:///a", backup(Full)),
        ("fb src file:///a", backup(Full)),
        ("incremental src file:///a", backup(Incremental)),
        ("incr src file:///a", backup(Incremental)),
        ("inc src file:///a", backup(Incremental)),
        ("ib src file:///a", backup(Incremental)),
        ("restore file:///a dst", Action::Restore(URL.into(), "dst".into())),
        ("rb file:///a dst", Action::Restore(URL.into(), "dst".into())),
        ("file:///a dst", Action::Restore(URL.into(), "dst".into())),
        ("verify file:///a dst", Action::Verify(URL.into(), "dst".into())),
        ("vb file:///a dst", Action::Verify(URL.into(), "dst".into())),
        ("collection-status file:///a", Action::CollectionStatus(URL.into())),
        ("st file:///a", Action::CollectionStatus(URL.into())),
        ("collection file:///a", Action::CollectionStatus(URL.into())),
        ("list-current-files file:///a", Action::ListCurrentFiles(URL.into())),
        ("ls file:///a", Action::ListCurrentFiles(URL.into())),
        ("cleanup file:///a", Action::Cleanup(URL.into())),
        ("cl file:///a", Action::Cleanup(URL.into())),
        ("remove-all-but-n-full 2 file:///a", Action::RemoveAllButNFull(2, URL.into())),
        ("ra 2 file:///a", Action::RemoveAllButNFull(2, URL.into())),
        ("remove-all-inc-of-but-n-full 3 file:///a", Action::RemoveAllIncOfButNFull(3, URL.into())),
        ("ri 3 file:///a", Action::RemoveAllIncOfButNFull(3, URL.into())),
    ];
    for (line, expected) in cases {
        assert_eq!(action(line), expected, "{line}");
    }
    let day_ago = Time::new(1_700_000_000 - 86_400).expect("a time");
    assert_eq!(action("remove-older-than 1D file:///a"), Action::RemoveOlderThan(day_ago, URL.into()));
    assert_eq!(action("ro 1D file:///a"), Action::RemoveOlderThan(day_ago, URL.into()));
    assert_eq!(action("src s3+http://bucket"), Action::Backup(Auto, "src".into(), "s3+http://bucket".into()));
}

#[test]
fn options_come_anywhere_and_values_in_three_ways() {
    for line in [
        "-v5 full --name=n src --volsize 25 file:///a",
        "full src file:///a -v 5 --name n --volsize=25",
        "--verbosity=info --name n --volsize=25 full src file:///a",
        "--verb i --nam n --vols 25 full src file:///a",
    ] {
        let options = good(line).options;
        assert_eq!(options.verbosity, Level::INFO, "{line}");
        assert_eq!((options.name.as_deref(), options.volume_size), (Some("n"), 25 << 20), "{line}");
    }
    assert_eq!(good("--rename a b restore file:///a dst").options.renames, [(b"a".to_vec(), b"b".to_vec())]);
    let gpg = super::parse(["--gpg-options=--a b".into(), "src".into(), URL.into()], now()).expect("valid");
    assert_eq!(gpg.options.gpg_options, ["--a b"]);
}

#[test]
fn rules_keep_their_order() {
    let rules = good("--include a --exclude b --exclude-regexp=c --include d src file:///a").options.rules;
    let patterns: Vec<_> = rules
        .iter()
        .map(|rule| match rule {
            Rule::Pattern { pattern, .. } | Rule::Regexp { pattern, .. } => pattern.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(patterns, [b"a", b"b", b"c", b"d"]);
}

/// The spellings that scripts use.
const SPELLINGS: &str = "--force --full-if-older-than=7D --exclude=/x --encrypt-key=K --volsize=25 --include=/x --allow-source-mismatch \
    --version --file-to-restore=x --verbosity=4 -v4 --no-encryption --s3-use-new-style --sign-key=K --archive-dir=/c --time=3D \
    --restore-time=3D --name=n --gpg-options=x --s3-european-buckets --dry-run --ssh-options=-oPort=22 --asynchronous-upload \
    --concurrency=2 --log-file=f -t3D --progress --tempdir=/t --path-to-restore=x -rx --use-agent --extra-clean \
    --exclude-device-files --exclude-filelist=/dev/null --exclude-if-present=x --compare-data --num-retries=3 \
    --include-globbing-filelist=/dev/null --no-print-statistics --exclude-other-filesystems --s3-use-rrs \
    --s3-use-ia --encrypt-sign-key=K --s3-endpoint-url=u --include-filelist=/dev/null --time-separator=_ --s3-multipart-chunk-size=25 \
    --exclude-globbing-filelist=/dev/null --gio --s3-use-multiprocessing --timeout=30 --log-fd=3 --scp-command=scp --sftp-command=sftp \
    --file-changed=x --file-prefix=p --file-prefix-archive=p --file-prefix-manifest=p --file-prefix-signature=p \
    --metadata-sync-mode=full --s3-unencrypted-connection --ftp-regular --s3-use-glacier --s3-use-glacier-ir \
    --s3-use-deep-archive --s3-region-name=r --gpg-binary=gpg --hidden-encrypt-key=K --numeric-owner --ignore-errors \
    --skip-if-no-change --jsonstat --show-changes-in-set=0 --no-restore-ownership --do-not-restore-ownership --exclude-regexp=x \
    --include-regexp=x --exclude-older-than=3D --null-separator --no-compression --max-blocksize=2048 --backend-retry-delay=5 \
    --s3-multipart-max-procs=2 --s3-multipart-max-timeout=2 --s3-use-onezone-ia --ftp-passive --log-timestamp --short-filenames --old-filenames --encrypt-secret-keyring=f --rsync-options=x --ssh-askpass";

#[test]
fn the_spellings_of_scripts_are_known() {
    let known = SPELLINGS.split_whitespace().collect::<Vec<_>>();
    assert!(known.len() > 85, "{}", known.len());
    for option in known {
        let line = format!("{option} src file:///a");
        // Keys and --no-encryption are not given together here.
        parse(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

/// Spellings that would change what is stored, or what it means, and are therefore errors.
#[test]
fn what_would_change_the_meaning_is_refused() {
    for option in ["--copy-links", "--files-from=f", "--use-gpgsm", "--s3-kms-key-id=k", "--par2-redundancy=10"] {
        let error = parse(&format!("{option} src file:///a")).expect_err(option);
        assert!(error.to_string().contains("is not supported: "), "{error}");
    }
}

#[test]
fn abbreviations_of_several_options_are_told_from_other_mistakes() {
    assert!(matches!(parse("--file p src file:///a"), Err(UsageError::Ambiguous(_))));
    assert!(matches!(parse("--no-such src file:///a"), Err(UsageError::Wrong(_))));
}

#[test]
fn what_is_no_longer_current_is_warned_about_once() {
    let line = good("--s3-use-new-style --s3-use-new-style --file-to-restore=x --use-agent file:///a dst");
    assert_eq!(line.warnings.len(), 3, "{:?}", line.warnings);
    assert_eq!(line.options.path_to_restore.as_deref(), Some(&b"x"[..]));
    assert!(good("--force src file:///a").warnings.is_empty());
}

#[test]
fn lines_that_make_no_sense() {
    for line in [
        "",
        "full",
        "full src",
        "src dst",
        "bogus src file:///a",
        "full src file:///a extra",
        "--bogus src file:///a",
        "--name",
        "--force=1 src file:///a",
        "-x src file:///a",
        "remove-older-than never file:///a",
        "remove-all-but-n-full 0 file:///a",
        "--volsize=0 src file:///a",
        "--volsize=x src file:///a",
        "-v10 src file:///a",
        "--exclu=x src file:///a",
        "--no-encryption --encrypt-key=K src file:///a",
        "verify file:///a",
        "--file src file:///a",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn help_and_version_need_nothing_else() {
    assert!(good("--version").options.version);
    assert!(good("-V").options.version);
    assert!(good("-h").options.help);
}

#[test]
fn the_table_is_in_order_and_without_doubles() {
    let long: Vec<_> = OPTIONS.iter().map(|spec| spec.name).filter(|name| name.starts_with("--")).collect();
    let mut sorted = long.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(long, sorted);
}

/// A pipe gives its list once only: whoever reads it must not find that the options have opened it before.
#[test]
fn a_list_of_files_may_be_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("list");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let line = format!("full --include-filelist={} src {URL}", pipe.display());
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(parse(&line).map(|parsed| parsed.options.rules.len())));
    let parsed = heard.recv_timeout(std::time::Duration::from_secs(20)).expect("nothing waits for a writer");
    assert_eq!(parsed.unwrap(), 1);
}
