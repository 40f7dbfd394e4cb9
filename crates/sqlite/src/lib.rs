//! The embedded store of jobservice: SQLite behind one writer thread with group commit.
