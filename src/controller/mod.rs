//! The controller: dereference, validate, build, apply, status.
