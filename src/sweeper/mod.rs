//! Expiry: which databases to sweep, when, and the sweep itself.
