//! The OrdersService resource.
