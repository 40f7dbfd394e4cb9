//! Cron text: when a policy is due.
