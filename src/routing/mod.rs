//! Ingress ordering, pure.
