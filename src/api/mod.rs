//! The orders HTTP API.
