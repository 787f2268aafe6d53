use super::*;

/// A path that exists only in a test.
struct Thing(bool);

impl Candidate for Thing {
    fn is_dir(&self) -> bool {
        self.0
    }
    fn attributes(&self) -> Option<Attributes> {
        None
    }
    fn holds(&self, name: &[u8]) -> bool {
        name == b".nobackup"
    }
}

fn include(pattern: &str) -> Rule {
    Rule::Pattern { include: true, pattern: pattern.into() }
}

fn exclude(pattern: &str) -> Rule {
    Rule::Pattern { include: false, pattern: pattern.into() }
}

fn selection(source: &str, rules: &[Rule]) -> Selection {
    Selection::new(Path::new(source), rules, false).unwrap_or_else(|e| panic!("{rules:?}: {e}"))
}

fn judge(selection: &Selection, path: &str) -> Verdict {
    let is_dir = path.ends_with('/');
    selection.judge(path.trim_end_matches('/').as_bytes(), &Thing(is_dir))
}

fn check(source: &str, rules: &[Rule], cases: &[(&str, Verdict)]) {
    let selection = selection(source, rules);
    for (path, verdict) in cases {
        assert_eq!(judge(&selection, path), *verdict, "{rules:?}: {path}");
    }
}

use Verdict::{Exclude, Include, Scan};

#[test]
fn without_rules_all_is_included() {
    check("/s", &[], &[("a", Include), ("a/b/", Include)]);
}

#[test]
fn the_idiom_of_wrappers() {
    let rules = [include("/s/a/b"), exclude("/s/etc/*.tmp"), include("/s/etc"), exclude("**")];
    let cases = [
        ("a/", Scan),
        ("a/b/", Include),
        ("a/b/c", Include),
        ("a/bc", Exclude),
        ("etc/", Include),
        ("etc/x.tmp", Exclude),
        ("etc/d/x.tmp", Include),
        ("other", Exclude),
    ];
    check("/s", &rules, &cases);
    check("/", &[include("/etc"), exclude("**")], &[("etc/", Include), ("etc/x", Include), ("usr/", Exclude)]);
}

#[test]
fn wildcards() {
    let cases = [
        ("**/x", &[("x", Exclude), ("a/x", Exclude), ("a/x/y", Exclude), ("ax", Include)][..]),
        ("/s/*", &[("a", Exclude), ("a/b", Exclude)]),
        ("/s/a?c", &[("abc", Exclude), ("aéc", Exclude), ("a/c", Include), ("abbc", Include)]),
        ("/s/[a-c]x", &[("bx", Exclude), ("dx", Include)]),
        ("/s/[!a-c]x", &[("bx", Include), ("dx", Exclude)]),
        ("/s/[]]x", &[("]x", Exclude)]),
        ("/s/[ax", &[("[ax", Exclude), ("a", Include)]),
        ("/s/a.b+", &[("a.b+", Exclude), ("aab", Include)]),
        ("**.o", &[("a.o", Exclude), ("d/a.o", Exclude), ("a.oo", Include)]),
        ("ignorecase:/s/ABC", &[("abc", Exclude), ("Abc/d", Exclude)]),
        ("/s/d/", &[("d/", Exclude), ("d", Include), ("d/x", Exclude)]),
        ("/s/n", &[("n\n", Exclude)]),
    ];
    for (pattern, cases) in cases {
        check("/s", &[exclude(pattern)], cases);
    }
}

#[test]
fn scanning_leads_to_what_is_included() {
    let rules = [include("/s/a/*/c"), exclude("**")];
    check("/s", &rules, &[("a/", Scan), ("a/b/", Scan), ("a/b/c", Include), ("a/b/d", Exclude), ("b/", Exclude)]);
    let rules = [include("/s/a/**/c"), exclude("**")];
    check("/s", &rules, &[("a/", Scan), ("a/b/", Scan), ("a/b/d/e/", Scan), ("a/b/d/c", Include), ("b/", Exclude)]);
}

#[test]
fn the_first_opinion_counts() {
    let rules = [exclude("/s/a/b"), include("/s/a"), exclude("**")];
    check("/s", &rules, &[("a/", Include), ("a/b", Exclude), ("a/c", Include)]);
}

#[test]
fn marks_come_before_patterns() {
    let rules = [include("/s/a"), Rule::IfPresent(b".nobackup".to_vec()), exclude("/s/z")];
    check("/s", &rules, &[("a/", Exclude), ("a", Include)]);
}

#[test]
fn regular_expressions_match_anywhere() {
    let rules = [Rule::Regexp { include: false, pattern: b"[0-9]{3}\\.log$".to_vec() }];
    check("/s", &rules, &[("d/x123.log", Exclude), ("d/x12.log", Include), ("x123.log.gz", Include)]);
    check("/s", &rules, &[("x123.log\n", Exclude), ("x123.log\n\n", Include)]);
}

#[test]
fn filters_change_what_follows() {
    let rules = [Rule::Filter(Filter::Literal), exclude("/s/a*"), Rule::Filter(Filter::Globbing), exclude("/s/b*")];
    check("/s", &rules, &[("a*", Exclude), ("a*/x", Exclude), ("ab", Include), ("bc", Exclude)]);
    let rules = [Rule::Filter(Filter::IgnoreCase), exclude("/s/ABC")];
    check("/s", &rules, &[("abc", Exclude)]);
}

#[test]
fn relative_sources() {
    check("./src/", &[exclude("src/a")], &[("a", Exclude)]);
    check(".", &[exclude("./a")], &[("a", Exclude), ("b", Include)]);
    check(".", &[exclude("**/a")], &[("a", Exclude)]);
}

#[test]
fn bytes_that_are_no_text() {
    let rules = [Rule::Pattern { include: false, pattern: b"/s/\xff*".to_vec() }];
    let selection = selection("/s", &rules);
    assert_eq!(selection.judge(b"\xffa", &Thing(false)), Exclude);
    assert_eq!(selection.judge(b"\xfea", &Thing(false)), Include);
    let any = self::selection("/s", &[exclude("/s/?")]);
    assert_eq!(any.judge(b"\xff", &Thing(false)), Exclude);
}

#[test]
fn rules_that_make_no_sense() {
    let code = |rules: &[Rule]| Selection::new(Path::new("/s"), rules, false).expect_err("refused").code();
    assert_eq!(code(&[include("/s/a")]), 16);
    assert_eq!(code(&[exclude("/other")]), 14);
    assert_eq!(code(&[exclude("a")]), 14);
    assert_eq!(code(&[exclude("/s//a")]), 15);
    assert_eq!(code(&[Rule::Regexp { include: false, pattern: b"(".to_vec() }]), 30);
    assert_eq!(code(&[Rule::Filter(Filter::Regexp), exclude("/s//**")]), 30);
    assert_eq!(code(&[exclude("/s/[z-a]")]), 30);
    assert_eq!(code(&[Rule::Filelist { include: true, file: Some("/nowhere/at all".into()) }]), 23);
    assert_eq!(code(&[exclude("/s/a"), Rule::Filter(Filter::Literal)]), 71);
    assert_eq!(code(&[Rule::Filter(Filter::StrictCase), exclude("/other")]), 70);
}

#[test]
fn lists_of_files() {
    let text = b"# comment\n\n  + /s/a b  \n- '/s/c '\n\"/s/d\"\n/s/e\r\n";
    let found = filelist::lines(text, false);
    let expected = [(Some(true), "/s/a b"), (Some(false), "/s/c "), (None, "/s/d"), (None, "/s/e")];
    assert_eq!(found, expected.map(|(sign, line)| (sign, line.as_bytes().to_vec())));
    assert_eq!(filelist::lines(b"+  /s/a\n''\n\"\n", false), [(Some(true), b" /s/a".to_vec())]);
    assert_eq!(filelist::lines(b"/s/a\0/s/b\nc\0", true).len(), 2);
    let patterns = |text: &str| filelist::lines(text.as_bytes(), false).into_iter().map(|(_, line)| line).collect::<Vec<_>>();
    assert_eq!(patterns("/s/a\r/s/b\r\n\r\n\u{a0}/s/\u{a0}c\u{a0}\u{1f}\n"), ["/s/a", "/s/b", "/s/\u{a0}c"].map(Vec::from));
    assert_eq!(filelist::lines(b" /s/\xff\xa0 ", false), [(None, b"/s/\xff\xa0".to_vec())]);
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("list");
    std::fs::write(&file, "- /s/a/b\n/s/a\n- **\n").expect("writes");
    check("/s", &[Rule::Filelist { include: true, file: Some(file) }], &[("a/", Include), ("a/b", Exclude), ("c", Exclude)]);
}

#[test]
fn real_files() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("old");
    std::fs::write(&file, "x").expect("writes");
    let selection = Selection::new(dir.path(), &[Rule::OlderThan(i64::MAX), Rule::OtherFilesystems], false).expect("valid");
    assert_eq!(selection.judge(b"old", &Local { path: &file, is_dir: false }), Exclude);
    let selection = Selection::new(dir.path(), &[Rule::OlderThan(0), Rule::OtherFilesystems], false).expect("valid");
    assert_eq!(selection.judge(b"old", &Local { path: &file, is_dir: false }), Include);
    let selection = Selection::new(Path::new("/"), &[Rule::OtherFilesystems, Rule::DeviceFiles], false).expect("valid");
    assert_eq!(selection.judge(b"proc", &Local { path: Path::new("/proc"), is_dir: true }), Exclude);
    assert_eq!(selection.judge(b"dev/null", &Local { path: Path::new("/dev/null"), is_dir: false }), Exclude);
    assert_eq!(canonical(b"//a/./b//"), b"/a/b");
}

/// A pattern that ends in a slash has nothing to say of a file of that name: what follows, or the lack of it, decides.
#[test]
fn patterns_of_directories_do_not_hide_files() {
    check("/s", &[include("/s/a/"), exclude("/s/b")], &[("a", Include), ("a/", Include), ("b", Exclude)]);
    check("/s", &[include("/s/a/"), exclude("**")], &[("a", Exclude), ("a/", Include), ("a/b", Include)]);
}

#[test]
fn patterns_of_a_restore_are_about_paths_as_listed() {
    let check = |rules: &[Rule], cases: &[(&str, Verdict)]| {
        let selection = Selection::of_archive(rules, false).unwrap_or_else(|e| panic!("{rules:?}: {e}"));
        cases.iter().for_each(|(path, verdict)| assert_eq!(judge(&selection, path), *verdict, "{rules:?}: {path}"));
    };
    check(&[include("priv/*"), exclude("**")], &[("priv/", Scan), ("priv/a", Include), ("a/priv/", Exclude), ("b", Exclude)]);
    check(&[include("././priv"), exclude("**")], &[("priv/", Include), ("priv/a", Include), ("b", Exclude)]);
    check(&[exclude("**/priv")], &[("priv", Include), ("a/priv", Exclude)]);
    check(&[exclude("ignorecase:./PRIV")], &[("priv", Exclude), ("a/priv", Include)]);
    let regexp = Rule::Regexp { include: false, pattern: b"^priv".to_vec() };
    check(&[regexp], &[("priv", Exclude), ("private", Exclude), ("a/priv", Include)]);
    check(&[Rule::Filter(Filter::Literal), exclude("./a*")], &[("a*", Exclude), ("ab", Include)]);
}

#[test]
fn rules_that_make_no_sense_for_a_restore() {
    let code = |rules: &[Rule]| Selection::of_archive(rules, false).expect_err("refused").code();
    for pattern in ["/x", ".//x", "a/../b", "a/./b", "..", ".", "./", "ignorecase:/x"] {
        assert_eq!(code(&[exclude(pattern)]), 14, "{pattern}");
        let pattern = pattern.trim_start_matches("ignorecase:");
        assert_eq!(code(&[Rule::Filter(Filter::Literal), exclude(pattern)]), 14, "{pattern}");
    }
    assert_eq!(code(&[exclude("a//b")]), 15);
    assert_eq!(code(&[include("a")]), 16);
    assert_eq!(code(&[exclude("/x"), Rule::IfPresent(b"x".to_vec())]), 23);
    let list = Rule::Filelist { include: true, file: Some("/nowhere/at all".into()) };
    let error = Selection::of_archive(&[list, Rule::OtherFilesystems], false).expect_err("refused");
    assert!(matches!(error, SelectError::NotForRestore(_)), "{error}");
}

#[test]
fn a_directory_holds_names_only() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::create_dir(dir.path().join("d")).expect("makes");
    std::fs::write(dir.path().join("d/mark"), "").expect("writes");
    let local = Local { path: dir.path(), is_dir: true };
    let absolute = dir.path().join("d/mark");
    for name in [b"".as_slice(), b".", b"..", b"/", b"d/", b"d/mark", b"./d", b"mark", absolute.as_os_str().as_bytes()] {
        assert!(!local.holds(name), "{}", name.escape_ascii());
    }
    assert!(local.holds(b"d"));
}
