//! The bytes of every object of a repository, and nothing else. `docs/format.md` is the specification.

pub mod pack;
