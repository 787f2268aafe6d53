//! URLs of duplicity's archives, and the stores behind them.
//!
//! Knows nothing of what the files mean.
