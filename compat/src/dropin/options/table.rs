//! Every option of duplicity 0.8 to 3.2, what it takes and what becomes of it.

use super::value::Key;

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It means what it means in duplicity.
    Meant(Key),
    /// Current duplicity has given it up. It still means what it meant; there is one warning.
    Removed(Key),
    /// Current duplicity has given it up, and it made no difference to the archive. There is one warning.
    Obsolete,
    /// It tunes something that works otherwise here. There is one warning.
    Ignored,
    /// The same, and its value must be a whole number all the same.
    IgnoredNumber,
    /// It would change what is stored or restored, or who can read it: it is an error, with this reason.
    Refused(&'static str),
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// With its dashes.
    pub name: &'static str,
    /// How many values: 0, 1 or 2.
    pub values: u8,
    pub class: Class,
}

const fn flag(name: &'static str, class: Class) -> Spec {
    Spec { name, values: 0, class }
}

const fn value(name: &'static str, class: Class) -> Spec {
    Spec { name, values: 1, class }
}

use Class::{Ignored, IgnoredNumber, Meant, Obsolete, Refused, Removed};

const NO_BACKEND: Class = Refused("the service that it is for is not supported");

/// The table. Short options stand at its end.
pub(super) const OPTIONS: &[Spec] = &[
    flag("--allow-source-mismatch", Meant(Key::AllowSourceMismatch)),
    value("--archive-dir", Meant(Key::ArchiveDir)),
    flag("--asynchronous-upload", Ignored),
    value("--azure-blob-tier", NO_BACKEND),
    value("--azure-max-block-size", IgnoredNumber),
    value("--azure-max-connections", IgnoredNumber),
    value("--azure-max-single-put-size", IgnoredNumber),
    flag("--b2-hide-files", Ignored),
    value("--backend-retry-delay", Meant(Key::RetryDelay)),
    value("--cf-backend", Ignored),
    flag("--check-remote", Ignored),
    flag("--compare-data", Meant(Key::CompareData)),
    flag("--compression", Meant(Key::Compression)),
    value("--concurrency", IgnoredNumber),
    value("--config-dir", Ignored),
    value("--copy-blocksize", IgnoredNumber),
    flag("--copy-links", Refused("links are always stored as links")),
    value("--current-time", Meant(Key::CurrentTime)),
    flag("--do-not-restore-ownership", Removed(Key::NoRestoreOwnership)),
    flag("--dry-run", Meant(Key::DryRun)),
    value("--encrypt-key", Meant(Key::EncryptKey)),
    value("--encrypt-secret-keyring", Ignored),
    value("--encrypt-sign-key", Meant(Key::EncryptSignKey)),
    flag("--encryption", Meant(Key::Encryption)),
    value("--exclude", Meant(Key::Exclude)),
    flag("--exclude-device-files", Meant(Key::ExcludeDevices)),
    value("--exclude-filelist", Meant(Key::ExcludeFilelist)),
    flag("--exclude-filelist-stdin", Removed(Key::ExcludeFilelistStdin)),
    value("--exclude-globbing-filelist", Removed(Key::ExcludeFilelist)),
    value("--exclude-if-present", Meant(Key::ExcludeIfPresent)),
    value("--exclude-older-than", Meant(Key::ExcludeOlderThan)),
    flag("--exclude-other-filesystems", Meant(Key::ExcludeOtherFilesystems)),
    value("--exclude-regexp", Meant(Key::ExcludeRegexp)),
    flag("--extra-clean", Obsolete),
    value("--file-changed", Meant(Key::FileChanged)),
    value("--file-prefix", Meant(Key::FilePrefix)),
    value("--file-prefix-archive", Meant(Key::FilePrefixArchive)),
    value("--file-prefix-jsonstat", Meant(Key::FilePrefixJsonstat)),
    value("--file-prefix-manifest", Meant(Key::FilePrefixManifest)),
    value("--file-prefix-signature", Meant(Key::FilePrefixSignature)),
    value("--file-to-restore", Removed(Key::PathToRestore)),
    value("--files-from", Refused("list the paths with --include-filelist and add --exclude '**'")),
    flag("--filter-globbing", Meant(Key::FilterGlobbing)),
    flag("--filter-ignorecase", Meant(Key::FilterIgnorecase)),
    flag("--filter-literal", Meant(Key::FilterLiteral)),
    flag("--filter-regexp", Meant(Key::FilterRegexp)),
    flag("--filter-strictcase", Meant(Key::FilterStrictcase)),
    flag("--force", Meant(Key::Force)),
    flag("--ftp-passive", Ignored),
    flag("--ftp-regular", Ignored),
    value("--full-if-n-inc", Meant(Key::FullIfNInc)),
    value("--full-if-older-than", Meant(Key::FullIfOlderThan)),
    flag("--gio", Obsolete),
    value("--gpg-binary", Ignored),
    value("--gpg-options", Meant(Key::GpgOptions)),
    flag("--help", Meant(Key::Help)),
    value("--hidden-encrypt-key", Meant(Key::HiddenEncryptKey)),
    value("--idr-fakeroot", NO_BACKEND),
    flag("--ignore-errors", Meant(Key::IgnoreErrors)),
    flag("--imap-full-address", Ignored),
    value("--imap-mailbox", NO_BACKEND),
    value("--include", Meant(Key::Include)),
    value("--include-filelist", Meant(Key::IncludeFilelist)),
    flag("--include-filelist-stdin", Removed(Key::IncludeFilelistStdin)),
    value("--include-globbing-filelist", Removed(Key::IncludeFilelist)),
    value("--include-regexp", Meant(Key::IncludeRegexp)),
    flag("--jsonstat", Meant(Key::Jsonstat)),
    value("--log-fd", Meant(Key::LogFd)),
    value("--log-file", Meant(Key::LogFile)),
    flag("--log-timestamp", Meant(Key::LogTimestamp)),
    value("--max-blocksize", IgnoredNumber),
    value("--metadata-sync-mode", Ignored),
    flag("--mf-purge", Ignored),
    value("--mp-segment-size", IgnoredNumber),
    value("--name", Meant(Key::Name)),
    flag("--no-check-remote", Ignored),
    flag("--no-compression", Meant(Key::NoCompression)),
    flag("--no-encryption", Meant(Key::NoEncryption)),
    flag("--no-files-changed", Meant(Key::NoFilesChanged)),
    flag("--no-print-statistics", Meant(Key::NoPrintStatistics)),
    flag("--no-restore-ownership", Meant(Key::NoRestoreOwnership)),
    flag("--null-separator", Meant(Key::NullSeparator)),
    value("--num-retries", Meant(Key::NumRetries)),
    flag("--numeric-owner", Meant(Key::NumericOwner)),
    flag("--old-filenames", Obsolete),
    value("--par2-options", NO_BACKEND),
    value("--par2-redundancy", NO_BACKEND),
    value("--par2-volumes", NO_BACKEND),
    value("--path-to-restore", Meant(Key::PathToRestore)),
    flag("--print-statistics", Meant(Key::PrintStatistics)),
    flag("--progress", Ignored),
    value("--progress-rate", IgnoredNumber),
    flag("--pydevd", Obsolete),
    Spec { name: "--rename", values: 2, class: Meant(Key::Rename) },
    flag("--restore-ownership", Meant(Key::RestoreOwnership)),
    value("--restore-time", Meant(Key::Time)),
    value("--rsync-options", Ignored),
    value("--s3-endpoint-url", Meant(Key::S3Endpoint)),
    flag("--s3-european-buckets", Obsolete),
    value("--s3-kms-grant", Refused("server-side encryption with keys of a service is not supported")),
    value("--s3-kms-key-id", Refused("server-side encryption with keys of a service is not supported")),
    value("--s3-multipart-chunk-size", IgnoredNumber),
    value("--s3-multipart-max-procs", IgnoredNumber),
    value("--s3-multipart-max-timeout", Obsolete),
    value("--s3-region-name", Meant(Key::S3Region)),
    flag("--s3-unencrypted-connection", Meant(Key::S3Unencrypted)),
    flag("--s3-use-deep-archive", Meant(Key::S3DeepArchive)),
    flag("--s3-use-glacier", Meant(Key::S3Glacier)),
    flag("--s3-use-glacier-ir", Meant(Key::S3GlacierIr)),
    flag("--s3-use-ia", Meant(Key::S3Ia)),
    flag("--s3-use-multiprocessing", Obsolete),
    flag("--s3-use-new-style", Obsolete),
    flag("--s3-use-onezone-ia", Meant(Key::S3OnezoneIa)),
    flag("--s3-use-rrs", Meant(Key::S3Rrs)),
    flag("--s3-use-server-side-encryption", Ignored),
    flag("--s3-use-server-side-kms-encryption", Refused("server-side encryption with keys of a service is not supported")),
    value("--scp-command", Ignored),
    value("--sftp-command", Ignored),
    flag("--short-filenames", Obsolete),
    value("--show-changes-in-set", Meant(Key::ShowChangesInSet)),
    value("--sign-key", Meant(Key::SignKey)),
    flag("--skip-if-no-change", Meant(Key::SkipIfNoChange)),
    flag("--ssh-askpass", Ignored),
    value("--ssh-options", Meant(Key::SshOptions)),
    value("--ssl-cacert-file", Meant(Key::CaFile)),
    value("--ssl-cacert-path", Refused("give one file with --ssl-cacert-file")),
    flag("--ssl-no-check-certificate", Refused("certificates are always checked; give another authority with --ssl-cacert-file")),
    value("--swift-storage-policy", NO_BACKEND),
    value("--tempdir", Meant(Key::TempDir)),
    value("--time", Meant(Key::Time)),
    value("--time-separator", Obsolete),
    value("--timeout", Meant(Key::Timeout)),
    flag("--use-agent", Ignored),
    flag("--use-gpgsm", Refused("S/MIME is not supported")),
    value("--verbosity", Meant(Key::Verbosity)),
    flag("--version", Meant(Key::Version)),
    value("--volsize", Meant(Key::Volsize)),
    value("--webdav-headers", Refused("headers are not passed on")),
    flag("-h", Meant(Key::Help)),
    flag("-V", Meant(Key::Version)),
    value("-r", Meant(Key::PathToRestore)),
    value("-t", Meant(Key::Time)),
    value("-v", Meant(Key::Verbosity)),
];
