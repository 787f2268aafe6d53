//! Support for tests: real servers, and a proxy that plays a bad network.

pub mod proxy;
pub mod seaweed;
