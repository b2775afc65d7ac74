//! The domain, pure: statuses and their transitions, orders, tickets, identifiers.
