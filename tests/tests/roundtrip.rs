//! Backup and restore through the built program: everything a file can be, on a disk and on a real S3 server.

use std::fs;
use std::os::unix::fs::MetadataExt;

use deduplicity_tests::env::Env;
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use deduplicity_tests::tree::{assert_same, describe, make_oddities, noise};

fn oddities_round_trip(env: &Env) {
    let source = env.path("src");
    make_oddities(&source);
    let before = describe(&source);
    env.ok(&["init"]);
    env.ok(&["backup", source.to_str().expect("UTF-8")]);
    let at = format!("latest:{}", source.display());
    env.ok(&["restore", &at, "--target", "out", "--verify"]);
    assert_same(&before, &describe(&env.path("out")));
    let blocks = fs::metadata(env.path("out/sparse")).expect("restored").blocks();
    assert!(blocks * 512 < 2 << 20, "a sparse file is restored sparse: {blocks} blocks");

    let second = env.ok(&["backup", "--json", source.to_str().expect("UTF-8")]);
    assert!(second.contains("\"files_unmodified\":14"), "no file is read again: {second}");
    assert!(second.contains("\"data_blobs\":0"), "no content is stored again: {second}");
    env.ok(&["check", "--read-data"]);
    // The whole snapshot goes below the target by its full path.
    env.ok(&["restore", "latest", "--target", "whole"]);
    let below = env.path("whole").join(source.strip_prefix("/").expect("absolute"));
    assert_same(&before, &describe(&below));
}

#[test]
fn oddities_on_a_disk() {
    oddities_round_trip(&Env::local());
}

#[test]
fn oddities_on_s3() {
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    oddities_round_trip(&Env::s3(&format!("http://{}", server.address()), &bucket, ACCESS_KEY, SECRET_KEY));
}

#[test]
fn versions_share_what_did_not_change() {
    let env = Env::local();
    let source = env.path("src");
    fs::create_dir_all(&source).expect("mkdir");
    for i in 0..500_u64 {
        fs::write(source.join(format!("f{i}")), noise(i, 2000)).expect("write");
    }
    let mut image = noise(1000, 20_000_000);
    fs::write(source.join("image"), &image).expect("write");
    env.ok(&["init"]);
    env.ok(&["backup", "src"]);
    let first = describe(&source);

    image[10_000_000..10_000_100].copy_from_slice(&noise(7, 100));
    image.splice(3_000_000..3_000_000, noise(8, 10));
    fs::write(source.join("image"), &image).expect("write");
    fs::remove_file(source.join("f7")).expect("remove");
    let summary = env.ok(&["backup", "--json", "src"]);
    let added: u64 = summary
        .split("\"data_added\":")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("no data_added in {summary}"));
    assert!(added < 4_000_000, "two small changes in an image cost {added} bytes");
    let second = describe(&source);
    for (reference, expected) in [("latest~1", &first), ("latest", &second)] {
        let at = format!("{reference}:{}", source.display());
        env.ok(&["restore", &at, "--target", reference]);
        assert_same(expected, &describe(&env.path(reference)));
    }
}
