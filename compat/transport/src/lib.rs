//! URLs of duplicity's archives, and the stores behind them: [`parse`] a URL, [`open`] it to read, [`open_target`] to write as
//! well.
//!
//! Knows nothing of what the files mean. Every store lists one flat folder, and resumes a file where the connection broke off,
//! over bounded attempts; a file that comes out short is an error, never an end.
//!
//! A file that is written waits in an unnamed temporary file until it is complete, and is sent as a whole, again and again over
//! bounded attempts, until it is there in its full length. Under its name it is whole or not there: it comes to be under a
//! name that no store lists and is renamed (file, sftp, ftp, webdav, and rclone where its remote is no better), or the protocol
//! makes it appear at once (S3, rsync). The folder is made with the first file, and those that it is in; a bucket never.
//!
//! | scheme | through |
//! |---|---|
//! | a path, `file://` | the file system |
//! | `s3://` and its older spellings | `engine_s3`, the project's own client |
//! | `sftp://`, `scp://` | the system's `ssh`, with its configuration, agent and known hosts; its sftp subsystem |
//! | `ftp://`, `ftps://` | suppaftp |
//! | `webdav://`, `webdavs://` | ureq |
//! | `rsync://` | the system's `rsync`, which fetches into a temporary folder |
//! | `rclone:` | the system's `rclone` |
//!
//! Why not opendal for all of them: its FTP service asks for offsets in an order that a server in use ignores without a
//! word, so that a resumed file has the wrong bytes in it; its sftp knows neither ssh's configuration nor passwords; it
//! lists a missing WebDAV folder as empty; and its futures would need a runtime here. suppaftp and ureq are blocking,
//! add a dozen crates to what S3 brings anyway, and compile in seconds. TLS is rustls on ring everywhere.
//!
//! Passwords come from the URL or [`Options::password`] and never are in messages, nor in arguments of programs.

mod dav;
mod error;
mod ftp;
mod helper;
mod location;
mod options;
mod rclone;
mod remote;
mod rsync;
mod s3;
mod sftp;
mod spool;
mod ssh;
mod tls;

use std::sync::Arc;

use compat::store::{Folder, Store, StoreError, Target};

use crate::error::Failure;
use crate::remote::{Protocol, Remote};

pub use location::{FtpTls, InvalidUrl, Location, RcloneRemote, Result, RsyncRoute, S3Location, Server, Tls, parse};
pub use options::{Options, Programs};

/// Files in a folder at most: more is an endless listing, or no archive.
const MAX_FILES: usize = 1_000_000;

/// Makes the store at a location. Asks no server anything yet, except through which door rsync goes.
///
/// # Errors
///
/// `Unusable` if the location or the options make no sense or something needed is missing.
pub fn open(location: &Location, options: &Options) -> Result<Arc<dyn Store>, StoreError> {
    Ok(open_target(location, options)?)
}

/// As [`open`], to write as well; the folder need not exist yet.
///
/// # Errors
///
/// As for [`open`].
pub fn open_target(location: &Location, options: &Options) -> Result<Arc<dyn Target>, StoreError> {
    let shown = location.to_string();
    let protocol = match location {
        Location::File(path) => {
            let folder = Folder::new(path);
            return Ok(match options.connections {
                0 => Arc::new(folder),
                readers => Arc::new(folder.with_readers(readers)),
            });
        }
        remote => protocol(remote, options).map_err(|failure| failure.at(&shown, ""))?,
    };
    Ok(Arc::new(Remote::new(shown, protocol, options)))
}

fn protocol(location: &Location, options: &Options) -> Result<Arc<dyn Protocol>, Failure> {
    Ok(match location {
        Location::File(_) => unreachable!("files are no protocol"),
        Location::S3(place) => Arc::new(s3::S3::new(place, options)?),
        Location::Sftp(server) => Arc::new(sftp::Sftp::new(server, options)?),
        Location::Ftp(server, tls) => Arc::new(ftp::Ftp::new(server, *tls, options)?),
        Location::Dav(server, tls) => Arc::new(dav::Dav::new(server, *tls, options)?),
        Location::Rsync(server, route) => Arc::new(rsync::Rsync::new(server, *route, options)?),
        Location::Rclone(remote) => Arc::new(rclone::Rclone::new(remote, options)),
    })
}
