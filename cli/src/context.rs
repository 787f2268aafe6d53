//! What commands share: the place of the repository, its password, its cache.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use engine::backend::local::LocalBackend;
use engine::backend::retry::{Retry, RetryPolicy};
use engine::backend::{Backend, ErrorKind};
use engine::error::Error;
use engine::id::RepoId;
use engine::monitor::Monitor;
use engine::repo::{HeadName, InitOptions, Reader, Repository, Watch, names};
use engine::snapshot::{self, SnapshotRecord};
use engine_s3::{S3Backend, S3Options};

use crate::announce::Announce;
use crate::args::{FilterArgs, FromArgs, Global, S3Args};
use crate::exit::{Status, advise};
use crate::parse::{self, Place};
use crate::password::{Ask, Password, Purpose, Source};
use crate::select::Filter;
use crate::ui::Ui;

/// How long a store may keep its first answer back.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// The content of a `CACHEDIR.TAG`, by which backup programs know a cache (bford.info/cachedir).
const CACHEDIR_TAG: &[u8] =
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Index caches of deduplicity; may be deleted at any time.\n";

/// The options that every command takes, and what follows from them.
pub struct Context {
    /// The user.
    pub ui: Arc<Ui>,
    global: Global,
    told_of_cache: AtomicBool,
}

impl Context {
    /// Opens nothing yet.
    pub fn new(global: Global, ui: Arc<Ui>) -> Self {
        Self { ui, global, told_of_cache: AtomicBool::new(false) }
    }

    /// The user as the engine sees them.
    pub fn monitor(&self) -> Arc<dyn Monitor> {
        Arc::clone(&self.ui) as Arc<dyn Monitor>
    }

    /// Where the repository is.
    pub fn place(&self) -> Result<Place> {
        let text = match &self.global.repo {
            Some(repo) => repo.clone(),
            None => place_from_environment()?,
        };
        match parse::place(&text).map_err(anyhow::Error::msg)? {
            Place::Local(path) => {
                let path = std::path::absolute(path).context("cannot tell the current directory")?;
                Ok(Place::Local(path))
            }
            s3 => Ok(s3),
        }
    }

    /// The store. Nothing is written yet; a store on the network is asked once whether it answers, with little patience:
    /// a wrong address should not take as long to show as an outage in the middle of a backup may last.
    pub fn backend(&self) -> Result<Arc<dyn Backend>> {
        let inner: Arc<dyn Backend> = match self.place()? {
            Place::Local(path) => return Ok(Arc::new(LocalBackend::new(path))),
            Place::S3(url) => Arc::new(S3Backend::open(s3_options(&url, &self.global.s3)?).map_err(Error::from)?),
        };
        let inner: Arc<dyn Backend> = Arc::new(Announce::new(inner, self.monitor()));
        let patient = |total| {
            let ui = Arc::clone(&self.ui);
            let policy = RetryPolicy { total, ..RetryPolicy::default() };
            Retry::new(Arc::clone(&inner), policy).cancelled_by(move || ui.was_cancelled())
        };
        match patient(FIRST_ANSWER).size(&names::config()) {
            Err(e) if matches!(e.kind, ErrorKind::Timeout | ErrorKind::Throttled) => Err(Error::from(e).into()),
            _ => Ok(Arc::new(patient(RetryPolicy::default().total))),
        }
    }

    /// The S3 options as far as they concern where an archive is.
    pub fn s3_for(&self, options: &mut transport::Options) {
        let args = &self.global.s3;
        options.s3_endpoint.clone_from(&args.s3_endpoint);
        options.s3_region.clone_from(&args.s3_region);
        options.s3_profile.clone_from(&args.s3_profile);
    }

    /// Opens the repository.
    pub fn open(&self) -> Result<Arc<Repository>> {
        self.open_after(|| ())
    }

    /// As [`Self::open`]; `meanwhile` is called when the password is there, to start what can be done while it is stretched.
    pub fn open_after(&self, meanwhile: impl FnOnce()) -> Result<Arc<Repository>> {
        let expected = self.global.expect_head.clone();
        self.open_with(Source::of_repository(&self.global)?, Purpose::Existing, expected, meanwhile)
    }

    /// Opens another repository for reading; what was said of S3 and of caches holds for it, too.
    pub fn other_reader(&self, args: &FromArgs) -> Result<Arc<Reader>> {
        let repo = args.from_repo.clone().or_else(|| std::env::var_os("DEDUPLICITY_FROM_REPOSITORY"));
        let Some(repo) = repo.filter(|repo| !repo.is_empty()) else {
            return Err(advise("no repository to copy from", "use --from-repo, or set DEDUPLICITY_FROM_REPOSITORY"));
        };
        let other = Self::new(Global { repo: Some(repo), ..self.global.clone() }, Arc::clone(&self.ui));
        let source = Source::of_other(args.from_password_file.as_deref(), args.from_password_command.as_deref())?;
        let repo = other.open_with(source, Purpose::Other, None, || ())?;
        let cache = other.cache_dir(repo.id());
        Ok(Arc::new(Reader::open(repo, cache.as_deref(), &*self.ui)?))
    }

    fn open_with(
        &self,
        source: Source,
        purpose: Purpose,
        expected: Option<HeadName>,
        meanwhile: impl FnOnce(),
    ) -> Result<Arc<Repository>> {
        let backend = self.backend()?;
        // Nobody should type a password for a repository that is not there.
        if source.needs_answer() && !Repository::exists(&*backend)? {
            return Err(Error::NoRepository { location: backend.location() }.into());
        }
        let password = source.read(purpose, Ask::Once)?;
        meanwhile();
        let repo = Repository::open(backend, &password)?;
        for object in repo.opened_by_parity() {
            self.ui.note(format!("{object} is damaged or lost; its parity did instead: run 'repair parity'"));
        }
        let watch = Watch { dir: self.cache_dir(repo.id()), expected, accept: self.global.accept_rollback };
        Ok(Arc::new(repo.watched(watch)))
    }

    /// Makes the repository.
    pub fn create(&self, options: InitOptions) -> Result<Repository> {
        let backend = self.backend()?;
        if Repository::exists(&*backend)? {
            return Err(Error::RepositoryExists { location: backend.location() }.into());
        }
        let password = Source::of_repository(&self.global)?.read(Purpose::Existing, Ask::Twice)?;
        let options = InitOptions { origin: origin(), ..options };
        Ok(Repository::create(backend, &password, &options)?)
    }

    /// Opens the repository, or makes it if there is none; tells whether it did.
    pub fn open_or_create(&self) -> Result<(Arc<Repository>, bool)> {
        match Repository::exists(&*self.backend()?)? {
            true => Ok((self.open()?, false)),
            false => {
                let repo = self.create(InitOptions::default())?;
                let watch = Watch { dir: self.cache_dir(repo.id()), ..Watch::default() };
                Ok((Arc::new(repo.watched(watch)), true))
            }
        }
    }

    /// A password to be, for the commands that set one.
    pub fn new_password(file: Option<&Path>) -> Result<Password> {
        Source::of_new_password(file)?.read(Purpose::New, Ask::Twice)
    }

    /// The directory of all caches; none if there should be none or there is no place for one.
    pub fn cache_base(&self) -> Option<PathBuf> {
        if self.global.no_cache {
            return None;
        }
        let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let default = || Some(from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache")))?.join("deduplicity"));
        let base = self.global.cache_dir.clone().or_else(default)?;
        std::path::absolute(base).ok()
    }

    /// The cache directory of a repository, made if need be. Where that fails the index is in memory.
    pub fn cache_dir(&self, repo: RepoId) -> Option<PathBuf> {
        let base = self.cache_base()?;
        match make_cache(&base, repo) {
            Ok(dir) => Some(dir),
            Err(error) => {
                if !self.told_of_cache.swap(true, Ordering::Relaxed) {
                    let base = base.display();
                    self.ui.note(format!("no cache at {base}: {error}; the index is in memory, and a rollback goes unnoticed"));
                }
                None
            }
        }
    }

    /// The repository, ready for reading.
    pub fn reader(&self) -> Result<Arc<Reader>> {
        let repo = self.open()?;
        let cache = self.cache_dir(repo.id());
        Ok(Arc::new(Reader::open(repo, cache.as_deref(), &*self.ui)?))
    }

    /// The snapshot that a reference means, among those that a filter leaves.
    pub fn find(&self, reader: &Reader, reference: &str, filter: &FilterArgs) -> Result<SnapshotRecord> {
        let mut all = snapshot::list(reader.repo(), reader.view(), &*self.ui)?;
        if reference.starts_with("latest") {
            let filter = Filter::new(filter)?;
            all.retain(|record| filter.accepts(record));
        }
        Ok(snapshot::resolve(&all, reference)?.clone())
    }

    /// How a command ended that did what it could.
    pub fn status(&self) -> Status {
        if self.ui.problem_count() == 0 { Status::Complete } else { Status::Incomplete }
    }
}

fn place_from_environment() -> Result<OsString> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(place) = variable("DEDUPLICITY_REPOSITORY") {
        return Ok(place);
    }
    let Some(file) = variable("DEDUPLICITY_REPOSITORY_FILE") else {
        return Err(advise("no repository given", "use -r PATH, or set DEDUPLICITY_REPOSITORY"));
    };
    let mut text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let end = text.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(text.len());
    text.truncate(end);
    Ok(OsString::from_vec(text))
}

fn s3_options(url: &str, args: &S3Args) -> Result<S3Options> {
    let mut options = S3Options::from_url(url)?;
    if args.s3_endpoint.is_some() && options.endpoint.is_some() {
        return Err(advise("the server is given twice", "leave out --s3-endpoint, or write s3://BUCKET/PREFIX"));
    }
    options.endpoint = options.endpoint.or_else(|| args.s3_endpoint.clone());
    options.region = args.s3_region.clone();
    options.profile = args.s3_profile.clone();
    options.storage_class = args.s3_storage_class.clone();
    options.path_style = match (args.s3_path_style, args.s3_virtual_host) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    if let Some(connections) = args.s3_connections {
        options.connections = connections.into();
    }
    if let Some(seconds) = args.s3_timeout {
        options.attempt_timeout = Duration::from_secs(seconds.into());
        options.connect_timeout = options.connect_timeout.min(options.attempt_timeout);
    }
    Ok(options)
}

fn make_cache(base: &Path, repo: RepoId) -> std::io::Result<PathBuf> {
    let dir = base.join(repo.to_string());
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    }
    let tag = OpenOptions::new().write(true).create_new(true).mode(0o600).open(base.join("CACHEDIR.TAG"));
    match tag.and_then(|mut file| file.write_all(CACHEDIR_TAG)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(dir),
    }
}

/// Name of this machine.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Name of whoever runs this.
pub fn user_name() -> String {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    named.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string())
}

/// Who makes a key.
pub fn origin() -> String {
    format!("{}@{}", user_name(), host_name())
}
