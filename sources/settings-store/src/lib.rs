//! Settings on disk: transactions, commits, recovery.
