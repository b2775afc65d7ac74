//! What is known besides the Ingresses.

/// What is known besides the Ingresses.
pub(in crate::migrate) struct Around<'a> {
    /// The Service of the orders, as it is.
    pub(in crate::migrate) orders: &'a str,
    /// What `--host` says: hosts to write in place of those that there are.
    pub(in crate::migrate) hosts: &'a [String],
    /// The name of the OrdersService.
    pub(in crate::migrate) name: &'a str,
}
