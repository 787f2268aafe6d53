//! Support for tests: the built program in an environment of its own, trees with everything a file can be, real servers, and
//! a proxy that plays a bad network.

pub mod cluster;
pub mod cut;
pub mod dropin;
pub mod env;
pub mod generate;
pub mod lines;
pub mod misuse;
pub mod proxy;
pub mod random;
pub mod seaweed;
pub mod servers;
pub mod tree;
