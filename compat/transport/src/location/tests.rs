use super::*;

fn s3(endpoint: Option<&str>, region: Option<&str>, bucket: &str, prefix: &str) -> Location {
    let own = |text: &str| text.to_owned();
    Location::S3(S3Location { endpoint: endpoint.map(own), region: region.map(own), bucket: own(bucket), prefix: own(prefix) })
}

fn at(user: Option<&str>, password: Option<&str>, host: &str, port: Option<u16>, path: &str) -> Server {
    Server {
        user: user.map(str::to_owned),
        password: password.map(|p| Zeroizing::new(p.to_owned())),
        host: host.to_owned(),
        port,
        path: path.to_owned(),
    }
}

#[test]
fn paths_and_files() {
    for (url, path) in [
        ("/a/b", "/a/b"),
        ("a b#c?d%41", "a b#c?d%41"),
        ("./with:colon", "./with:colon"),
        ("c:d", "c:d"),
        ("file:///a/b%20c", "/a/b c"),
        ("file://rel/x", "rel/x"),
        ("file://./rel/../x", "./rel/../x"),
        ("file:////a", "//a"),
        ("rel/x", "rel/x"),
        ("../x", "../x"),
        ("FILE:///a", "/a"),
    ] {
        assert_eq!(parse(url), Ok(Location::File(path.into())), "{url}");
    }
}

#[test]
fn buckets() {
    for (url, expected) in [
        ("s3://bucket", s3(None, None, "bucket", "")),
        ("s3://my.bucket/a/b/", s3(None, None, "my.bucket", "a/b")),
        ("s3:///bucket/p", s3(None, None, "bucket", "p")),
        ("s3+http://bucket/p", s3(None, None, "bucket", "p")),
        ("boto3+s3://bucket//p///q/", s3(None, None, "bucket", "p/q")),
        ("boto+s3://bucket", s3(None, None, "bucket", "")),
        ("s3://127.0.0.1:8433/bucket/p%20q", s3(Some("127.0.0.1:8433"), None, "bucket", "p q")),
        ("s3://localhost/bucket", s3(Some("localhost"), None, "bucket", "")),
        ("s3://[::1]:80/bucket", s3(Some("[::1]:80"), None, "bucket", "")),
        ("s3://s3.example.org/bucket", s3(Some("s3.example.org"), None, "bucket", "")),
        ("s3://s3.amazonaws.com/bucket/p", s3(None, None, "bucket", "p")),
        ("s3://s3-eu-west-1.amazonaws.com/bucket", s3(None, Some("eu-west-1"), "bucket", "")),
        ("s3://s3.eu-central-1.amazonaws.com/b/p", s3(None, Some("eu-central-1"), "b", "p")),
        ("s3://nyc3.digitaloceanspaces.com/b/p/q", s3(Some("nyc3.digitaloceanspaces.com"), None, "b", "p/q")),
        ("s3://storage.googleapis.com/b", s3(Some("storage.googleapis.com"), None, "b", "")),
        ("s3://digitaloceanspaces.com/b", s3(None, None, "digitaloceanspaces.com", "b")),
        ("s3:///s3.example.org/p", s3(None, None, "s3.example.org", "p")),
        ("boto3+s3://s3.example.org/p", s3(None, None, "s3.example.org", "p")),
        ("s3://bucket/a?b#c", s3(None, None, "bucket", "a")),
        ("s3:http://h:1/b/p", s3(Some("http://h:1"), None, "b", "p")),
    ] {
        assert_eq!(parse(url).as_ref(), Ok(&expected), "{url}");
    }
}

fn remote(name: &str, path: &str) -> Location {
    Location::Rclone(RcloneRemote { name: name.to_owned(), parameters: Vec::new(), path: path.to_owned() })
}

#[test]
fn servers() {
    for (url, expected) in [
        ("sftp://h//abs/p", Location::Sftp(at(None, None, "h", None, "/abs/p"))),
        ("sftp://u@h:2222//abs/p/", Location::Sftp(at(Some("u"), None, "h", Some(2222), "/abs/p/"))),
        ("sftp://u@h:2222/rel/p", Location::Sftp(at(Some("u"), None, "h", Some(2222), "rel/p"))),
        ("paramiko+sftp://h/", Location::Sftp(at(None, None, "h", None, ""))),
        ("scp://u@h:22/rel/p", Location::Sftp(at(Some("u"), None, "h", Some(22), "rel/p"))),
        ("sftp://u:p%40ss@[::1]:2/x", Location::Sftp(at(Some("u"), Some("p@ss"), "::1", Some(2), "x"))),
        ("ftp://u@x:pw@h/d", Location::Ftp(at(Some("u@x"), Some("pw"), "h", None, "d"), FtpTls::Off)),
        ("ftps://h", Location::Ftp(at(None, None, "h", None, ""), FtpTls::Either)),
        ("webdav://h:8080/a%20b/", Location::Dav(at(None, None, "h", Some(8080), "a b/"), Tls::Off)),
        ("webdavs://u:p@h/a", Location::Dav(at(Some("u"), Some("p"), "h", None, "a"), Tls::On)),
        ("rsync://h::/m/p", Location::Rsync(at(None, None, "h", None, "m/p"), RsyncRoute::Daemon)),
        ("rsync://u:p@h:10873::m", Location::Rsync(at(Some("u"), Some("p"), "h", Some(10873), "m"), RsyncRoute::Daemon)),
        ("rsync://u@h//abs", Location::Rsync(at(Some("u"), None, "h", None, "/abs"), RsyncRoute::Ssh)),
        ("rsync://h:873/m/p", Location::Rsync(at(None, None, "h", Some(873), "m/p"), RsyncRoute::Either)),
        ("rsync://[::1]:873/m", Location::Rsync(at(None, None, "::1", Some(873), "m"), RsyncRoute::Either)),
        ("rclone://r:/p%20q", remote("r", "/p q")),
        ("rclone:r:p", remote("r", "p")),
    ] {
        assert_eq!(parse(url).as_ref(), Ok(&expected), "{url}");
    }
}

#[test]
fn refuses_without_quoting_secrets() {
    for url in [
        "",
        "ftp://",
        "ftp:///x",
        "ftp://user:hush#word@h/d",
        "ftp://user:hush/word@h/d",
        "ftp://h:99999/d",
        "ftp://h:0/d",
        "sftp://-oProxyCommand=hush/d",
        "sftp://-l@h/d",
        "ftp://h/a%0d%0aDELE%20hush",
        "ftp://h/%ff",
        "rsync://h::",
        "rclone://hush",
        "s3://",
        "s3:///",
        "s3://key:hush@h/b",
        "gopher://u:hush@h/x",
        "ftp://[::1/x",
        "a\nb",
    ] {
        let error = parse(url).unwrap_err();
        assert!(!error.to_string().contains("hush"), "{url}: {error}");
    }
}

#[test]
fn is_shown_without_credentials() {
    for (url, shown) in [
        ("ftp://u:hush@h:21//a/b/", "ftp://h:21//a/b"),
        ("sftp://u:hush@h/rel", "sftp://h/rel"),
        ("webdavs://u:hush@h/a b", "webdavs://h/a b"),
        ("rsync://u:hush@h::m/p", "rsync://h::m/p"),
        ("rsync://u@h//p", "rsync://h//p"),
        ("rclone::ftp,pass=hush:/p", "rclone::ftp,…:/p"),
        ("s3:http://h:1/b/p", "s3:http://h:1/b/p"),
        ("s3://127.0.0.1:1/b", "s3://127.0.0.1:1/b"),
    ] {
        let location = parse(url).unwrap();
        assert_eq!(location.to_string(), shown);
        assert!(!format!("{location:?}").contains("hush"), "{location:?}");
    }
}
