//! MongoDB: connection, indexes, tickets, reserving, transitions, expiry queries.
