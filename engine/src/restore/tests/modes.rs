//! Targets that are not empty, some of them hostile.

use super::*;

fn mode(overwrite: Overwrite, world: &World) -> RestoreOptions {
    RestoreOptions { overwrite, ..world.options() }
}

/// A tree of three files, restored once, then changed in the target.
fn changed() -> World {
    let world = World::new();
    for name in ["same", "other", "d/gone"] {
        world.write(name, &noise(3, 100_000));
    }
    symlink("text", world.source("link")).expect("symlink");
    world.backup();
    world.restore(&world.options());
    fs::write(world.target("other"), b"changed").expect("writes");
    fs::remove_file(world.target("d/gone")).expect("removes");
    world
}

#[test]
fn always_replaces_everything() {
    let world = changed();
    let outcome = world.restore(&mode(Overwrite::Always, &world));
    assert_eq!((outcome.files, outcome.skipped), (3, 0));
    assert_eq!(see(&world.target("")), see(&world.source("")));
}

#[test]
fn if_changed_restores_what_differs() {
    let world = changed();
    let outcome = world.restore(&mode(Overwrite::IfChanged, &world));
    assert_eq!((outcome.files, outcome.skipped, outcome.verified), (2, 2, 3));
    assert_eq!(see(&world.target("")), see(&world.source("")));
}

#[test]
fn never_keeps_what_exists() {
    let world = changed();
    let outcome = world.restore(&mode(Overwrite::Never, &world));
    assert_eq!((outcome.files, outcome.skipped, outcome.verified), (1, 3, 1));
    assert_eq!(fs::read(world.target("other")).expect("reads"), b"changed");
    assert_eq!(fs::read(world.target("d/gone")).expect("reads"), noise(3, 100_000));
}

#[test]
fn links_follow_the_mode() {
    let world = World::new();
    world.write("1", b"content");
    fs::hard_link(world.source("1"), world.source("2")).expect("hard link");
    fs::hard_link(world.source("1"), world.source("3")).expect("hard link");
    world.backup();
    world.restore(&world.options());
    let again = world.restore(&mode(Overwrite::IfChanged, &world));
    assert_eq!((again.files, again.skipped), (0, 3));
    // Another file stays; the others must not become links to it.
    fs::remove_file(world.target("1")).expect("removes");
    fs::write(world.target("1"), b"mine").expect("writes");
    fs::remove_file(world.target("2")).expect("removes");
    fs::remove_file(world.target("3")).expect("removes");
    let never = world.restore(&mode(Overwrite::Never, &world));
    assert_eq!((never.files, never.skipped), (2, 1));
    assert_eq!(fs::read(world.target("1")).expect("reads"), b"mine");
    assert_eq!(fs::read(world.target("2")).expect("reads"), b"content");
    assert_eq!(fs::metadata(world.target("3")).expect("there").nlink(), 2);
    world.restore(&world.options());
    assert_eq!(see(&world.target("")), see(&world.source("")));
}

#[test]
fn symlinks_in_the_way_are_never_followed() {
    let world = World::new();
    world.write("dir/file", b"content");
    world.write("plain", b"content");
    world.backup();
    let outside = world.temp.path().join("outside");
    fs::create_dir(&outside).expect("directory");
    fs::write(outside.join("file"), b"untouched").expect("writes");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o751)).expect("mode");
    fs::create_dir(world.target("")).expect("target");
    symlink(&outside, world.target("dir")).expect("symlink");
    symlink(outside.join("file"), world.target("plain")).expect("symlink");
    let before = see(&outside);

    let (outcome, problems) = world.restore_with(&mode(Overwrite::Never, &world), &Limits::default());
    let subjects: Vec<_> = problems.iter().map(|p| p.subject.as_str()).collect();
    assert_eq!(subjects, ["dir"], "{problems:?}");
    assert_eq!(outcome.expect("goes on").skipped, 1);
    assert_eq!(see(&outside), before);

    world.restore(&world.options());
    assert_eq!(see(&outside), before);
    assert_eq!(see(&world.target("")), see(&world.source("")));
}

#[test]
fn a_directory_in_the_way_of_a_file_stays() {
    let world = World::new();
    world.write("a", b"content");
    world.write("b", b"content");
    world.backup();
    fs::create_dir_all(world.target("a/inside")).expect("directories");
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::Never] {
        let (outcome, problems) = world.restore_with(&mode(overwrite, &world), &Limits::default());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].subject == "a" && problems[0].message.contains("directory"), "{problems:?}");
        assert_eq!(outcome.expect("goes on").problems, 1);
        assert!(world.target("a/inside").is_dir());
        assert_eq!(fs::read(world.target("b")).expect("reads"), b"content");
    }
}

#[test]
fn a_claim_of_more_data_than_there_is_room_ends_the_run_before_it_begins() {
    let world = World::new();
    world.write("file", b"content");
    world.backup();
    let dest = Destination::open(world.temp.path(), DestOptions::default()).expect("opens");
    assert!(check_room(&dest, 1).is_ok());
    let error = check_room(&dest, 8 << 60).expect_err("too much");
    assert!(error.to_string().contains("bytes are free"), "{error}");
}

#[test]
fn cancelling_says_how_to_continue() {
    let world = World::new();
    fill(&world);
    let name = world.backup();
    let collector = Arc::new(Collector::default());
    collector.cancel();
    let monitor: Arc<dyn Monitor> = Arc::clone(&collector) as _;
    let root = world.repo.read_snapshot(&name).expect("snapshot").root;
    let result = run(&world.reader(), root, &world.target(""), &world.options(), &monitor);
    assert!(matches!(result, Err(Error::Interrupted)));
    assert!(collector.notes()[0].contains("if-changed"));
}
