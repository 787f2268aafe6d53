//! The S3 backend against a real server, directly and through a bad network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use deduplicity_tests::env::Env;
use deduplicity_tests::proxy::{Harm, Proxy, Rule};
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use deduplicity_tests::servers;
use engine::backend::retry::{Retry, RetryPolicy};
use engine::backend::{Backend, ErrorKind, ObjectKey, suite};
use engine::probe;
use engine_s3::{S3Backend, S3Options};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).expect("key")
}

fn policy() -> RetryPolicy {
    RetryPolicy { first_wait: Duration::from_millis(5), longest_wait: Duration::from_millis(50), ..Default::default() }
}

/// A bucket behind a proxy, with and without repetition.
struct Lab {
    proxy: Proxy,
    plain: Arc<S3Backend>,
    retry: Retry,
    _server: Arc<Seaweed>,
}

fn lab(adjust: impl FnOnce(&mut S3Options)) -> Option<Lab> {
    let server = Seaweed::shared()?;
    let bucket = server.new_bucket();
    let proxy = Proxy::start(server.address());
    let mut options = Seaweed::options(proxy.address(), &bucket, "some/prefix");
    adjust(&mut options);
    let plain = Arc::new(S3Backend::open(options).expect("client"));
    let retry = Retry::new(plain.clone(), policy());
    Some(Lab { proxy, plain, retry, _server: server })
}

#[test]
fn conforms() {
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    let count = AtomicUsize::new(0);
    suite::run(&|| {
        let prefix = format!("p{}", count.fetch_add(1, Ordering::Relaxed));
        let backend = S3Backend::open(Seaweed::options(server.address(), &bucket, &prefix)).unwrap();
        assert!(!backend.create_is_exclusive(), "nothing is known before the probe");
        assert!(probe::create_is_exclusive(&backend).unwrap());
        assert!(backend.create_is_exclusive());
        Box::new(backend)
    });
}

#[test]
fn a_wrong_secret_is_denied() {
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    for credentials in [("TESTACCESSKEY0000000", "wrong"), ("NOBODY00000000000000", "wrong")] {
        let mut options = Seaweed::options(server.address(), &bucket, "");
        options.credentials = Some((credentials.0.into(), credentials.1.into()));
        let backend = S3Backend::open(options).unwrap();
        let errors = [
            backend.prepare().unwrap_err(),
            backend.create(&key("a"), Bytes::new()).unwrap_err(),
            backend.read(&key("a"), 9).unwrap_err(),
            backend.size(&key("a")).unwrap_err(),
            backend.list("", &mut |_| ()).unwrap_err(),
            backend.delete(&key("a")).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind, ErrorKind::Denied, "{error}");
            assert!(error.to_string().contains(&bucket) && error.message.contains("credentials"), "{error}");
            assert!(!error.to_string().contains('\n'));
        }
    }
}

#[test]
fn a_missing_bucket_is_no_store() {
    let Some(server) = Seaweed::shared() else { return };
    let backend = S3Backend::open(Seaweed::options(server.address(), "no-such-bucket", "")).unwrap();
    let kinds = [
        backend.prepare().unwrap_err().kind,
        backend.create(&key("a"), Bytes::new()).unwrap_err().kind,
        backend.read(&key("a"), 9).unwrap_err().kind,
        backend.read_range(&key("a"), 0, 1).unwrap_err().kind,
        backend.size(&key("a")).unwrap_err().kind,
        backend.list("", &mut |_| ()).unwrap_err().kind,
    ];
    assert_eq!(kinds, [ErrorKind::NoStore; 6]);
}

#[test]
fn nobody_at_home_is_temporary() {
    let mut options = Seaweed::options(([127, 0, 0, 1], 9).into(), "bucket", "");
    options.attempt_timeout = Duration::from_secs(5);
    let error = S3Backend::open(options).unwrap().read(&key("a"), 9).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    assert!(error.message.contains("refused"), "{error}");
}

#[test]
fn a_storage_class_is_kept_or_refused() {
    let Some(lab) = lab(|o| o.storage_class = Some("STANDARD_IA".into())) else { return };
    assert_eq!(lab.plain.storage_class_kept(), None);
    lab.plain.create(&key("a"), Bytes::from_static(b"x")).unwrap();
    assert_eq!(lab.plain.storage_class_kept(), Some(true));
    lab.plain.create(&key("b"), Bytes::from_static(b"x")).unwrap();
    assert_eq!(lab.proxy.count("HEAD "), 1);
}

#[test]
fn a_burst_of_refusals_is_outlasted() {
    let Some(lab) = lab(|_| ()) else { return };
    for (status, code) in [(503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError")] {
        lab.proxy.inject(Rule::new("", Harm::Status(status, code)).times(6));
        let name = format!("after-{status}");
        lab.retry.create(&key(&name), Bytes::from_static(b"x")).unwrap();
        lab.proxy.heal();
        let before = lab.proxy.count("PUT ");
        lab.proxy.inject(Rule::new("PUT", Harm::Status(status, code)).times(1));
        let error = lab.plain.create(&key("once"), Bytes::new()).unwrap_err();
        assert_eq!(lab.proxy.count("PUT "), before + 1, "the SDK repeats by itself");
        assert!(error.is_temporary() && error.message.contains(code), "{error}");
        lab.proxy.inject(Rule::new("", Harm::Status(status, code)).times(5));
        assert_eq!(&lab.retry.read(&key(&name), 9).unwrap()[..], b"x");
        let mut count = 0;
        lab.proxy.inject(Rule::new("", Harm::Status(status, code)).times(5));
        lab.retry.list("", &mut |_| count += 1).unwrap();
        assert!(count >= 1);
    }
}

#[test]
fn a_lost_reply_to_a_put_is_success() {
    let Some(lab) = lab(|_| ()) else { return };
    lab.proxy.inject(Rule::new("PUT", Harm::LostReply).times(2));
    lab.retry.create(&key("mine"), Bytes::from(vec![7; 100_000])).unwrap();
    assert_eq!(lab.proxy.count("PUT "), 3);
    assert_eq!(lab.retry.size(&key("mine")).unwrap(), 100_000);
    // The same, but somebody else's object was there first.
    lab.proxy.inject(Rule::new("PUT", Harm::Reset).times(1));
    let error = lab.retry.create(&key("mine"), Bytes::from_static(b"other")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
    assert_eq!(lab.retry.size(&key("mine")).unwrap(), 100_000);
}

#[test]
fn a_hang_ends_in_time() {
    let Some(lab) = lab(|o| o.attempt_timeout = Duration::from_millis(500)) else { return };
    lab.plain.create(&key("a"), Bytes::from_static(b"x")).unwrap();
    lab.proxy.inject(Rule::new("", Harm::Hang(Duration::from_secs(20))).times(5));
    let start = Instant::now();
    let kinds = [
        lab.plain.read(&key("a"), 9).unwrap_err().kind,
        lab.plain.size(&key("a")).unwrap_err().kind,
        lab.plain.list("", &mut |_| ()).unwrap_err().kind,
        lab.plain.create(&key("b"), Bytes::new()).unwrap_err().kind,
    ];
    assert_eq!(kinds, [ErrorKind::Timeout; 4]);
    assert_eq!(&lab.retry.read(&key("a"), 9).unwrap()[..], b"x");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_cut_reply_is_read_again() {
    let Some(lab) = lab(|_| ()) else { return };
    let body = Bytes::from((0..=250_u8).cycle().take(1_000_000).collect::<Vec<_>>());
    lab.plain.create(&key("a"), body.clone()).unwrap();
    for cut in [0, 1, 500_000, 999_999] {
        lab.proxy.inject(Rule::new("GET", Harm::CutReply(cut)).times(1));
        let error = lab.plain.read(&key("a"), 1 << 20).unwrap_err();
        assert!(error.is_temporary(), "{error}");
        lab.proxy.inject(Rule::new("GET", Harm::CutReply(cut)).times(2));
        assert!(lab.retry.read(&key("a"), 1 << 20).unwrap() == body);
        lab.proxy.inject(Rule::new("GET", Harm::CutReply(cut.min(999))).times(2));
        assert!(lab.retry.read_range(&key("a"), 5, 1000).unwrap() == body[5..1005]);
    }
    lab.proxy.inject(Rule::new("GET", Harm::CutReply(50)).path("list-type=2").times(2));
    let mut count = 0;
    lab.retry.list("", &mut |_| count += 1).unwrap();
    assert_eq!(count, 1);
}

#[test]
fn a_flipped_bit_is_refused_on_the_way_in_and_left_to_the_reader_on_the_way_out() {
    let Some(lab) = lab(|_| ()) else { return };
    let body = Bytes::from(vec![0; 10_000]);
    lab.proxy.inject(Rule::new("PUT", Harm::FlipRequest(77)).times(1));
    lab.retry.create(&key("a"), body.clone()).unwrap();
    assert!(lab.retry.read(&key("a"), 10_000).unwrap() == body, "a damaged body was stored");
    assert!(lab.proxy.count("PUT ") >= 2);
    lab.proxy.inject(Rule::new("GET", Harm::FlipReply(77)).times(1));
    let read = lab.retry.read(&key("a"), 10_000).unwrap();
    assert_eq!(read.iter().position(|b| *b == 1), Some(77));
}

#[test]
fn servers_that_know_less_are_met_half_way() {
    let Some(lab) = lab(|_| ()) else { return };
    lab.proxy.inject(Rule::new("PUT", Harm::Status(409, "ConditionalRequestConflict")).times(2));
    lab.plain.create(&key("conflict"), Bytes::from_static(b"x")).unwrap();
    lab.proxy.inject(Rule::new("PUT", Harm::Status(400, "XAmzContentSHA256Mismatch")).times(1));
    lab.plain.create(&key("checksum"), Bytes::from_static(b"x")).unwrap();
    assert!(probe::create_is_exclusive(&*lab.plain).unwrap());
    lab.proxy.inject(Rule::new("PUT", Harm::Status(501, "NotImplemented")).times(1));
    lab.plain.create(&key("condition"), Bytes::from_static(b"x")).unwrap();
    assert!(!lab.plain.create_is_exclusive(), "the condition is no longer sent");
    assert!(!probe::create_is_exclusive(&*lab.plain).unwrap());
    let mut names = Vec::new();
    lab.plain.list("", &mut |meta| names.push(meta.key.to_string())).unwrap();
    names.sort_unstable();
    assert_eq!(names, ["checksum", "condition", "conflict"], "the probes are left behind");
}

#[test]
fn cold_objects_say_so() {
    let Some(lab) = lab(|_| ()) else { return };
    lab.proxy.inject(Rule::new("GET", Harm::Status(403, "InvalidObjectState")).times(1));
    let error = lab.retry.read(&key("a"), 9).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(error.message.contains("cold storage"), "{error}");
}

#[test]
fn a_slow_line_is_no_hang() {
    let Some(lab) = lab(|o| o.attempt_timeout = Duration::from_millis(700)) else { return };
    lab.proxy.set_rate(1 << 20);
    // Takes two seconds, more than an attempt without a body may, but is faster than the slowest upload.
    lab.plain.create(&key("a"), Bytes::from(vec![1; 2 << 20])).unwrap();
}

#[test]
fn the_doctor_finds_nothing_wrong_and_leaves_nothing() {
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    let env = Env::s3(&format!("http://{}", server.address()), &bucket, ACCESS_KEY, SECRET_KEY);
    let report: serde_json::Value = serde_json::from_str(&env.ok(&["doctor", "--json"])).expect("JSON");
    assert_eq!(report["usable"], true);
    assert_eq!(report["promises"].as_array().map(Vec::len), Some(6));
    assert!(report["clock_ahead"].as_f64().is_some_and(|s| s.abs() < 10.0), "{report}");
    let backend = S3Backend::open(Seaweed::options(server.address(), &bucket, "")).unwrap();
    let mut left = 0;
    backend.list("", &mut |_| left += 1).unwrap();
    assert_eq!(left, 0);
    assert!(env.ok(&["doctor"]).contains("removing old backups and reclaiming space: yes, from any machine"));
}

#[test]
fn the_doctor_sees_what_a_server_gets_wrong() {
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    let proxy = Proxy::start(server.address());
    let env = Env::s3(&format!("http://{}", proxy.address()), &bucket, ACCESS_KEY, SECRET_KEY);
    // A server that does not know conditions.
    proxy.inject(Rule::new("PUT", Harm::Status(501, "NotImplemented")).times(1));
    let run = env.run(&["doctor"]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.out.contains("FAILED  no object is ever replaced, even in a race: of 8 writers"), "{}", run.out);
    assert!(run.out.contains("reclaiming space: only ever from one machine"), "{}", run.out);
    // Credentials that may not delete.
    proxy.inject(Rule::new("DELETE", Harm::Status(403, "AccessDenied")));
    let run = env.run(&["doctor", "--json"]);
    assert_eq!(run.code, 3, "{}", run.err);
    let report: serde_json::Value = serde_json::from_str(&run.out).expect("JSON");
    assert_eq!(report["left_behind"].as_array().map(Vec::len), Some(23), "{report}");
    proxy.heal();
    // Bytes that change on the way out.
    proxy.inject(Rule::new("GET", Harm::FlipReply(100)).path("-large"));
    let run = env.run(&["doctor"]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.err.contains("cannot hold a repository") && run.out.contains("backup, restore and check: no"), "{}", run.out);
}

/// A real server that takes the condition and replaces the object all the same.
#[test]
fn the_doctor_sees_that_rclone_replaces_objects() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    let Some(server) = servers::rclone_s3(folder.path(), ACCESS_KEY, SECRET_KEY) else { return };
    let env = Env::s3(&format!("http://{}", server.address()), "bucket", ACCESS_KEY, SECRET_KEY);
    let run = env.run(&["doctor"]);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    assert!(run.out.contains("FAILED  no object is ever replaced, even in a race"), "{}", run.out);
    assert!(run.out.contains("backup, restore and check: yes"), "{}", run.out);
    assert!(run.out.contains("reclaiming space: only ever from one machine, one run at a time"), "{}", run.out);
}
