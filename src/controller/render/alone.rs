//! What is wrong with one OrdersService by itself.

use serde_json::Value;

use crate::{
    controller::{
        reconcile::{dereference::Dereferenced, validate::validate},
        schema,
    },
    crd::OrdersService,
};

/// Every problem of an OrdersService, but for what other objects claim. One without an image gets the operator's.
pub fn problems(service: &OrdersService) -> Vec<String> {
    match validate(service, &Dereferenced::default(), Some("orders-operator")) {
        Ok(_) => Vec::new(),
        Err(found) => found.into_iter().map(|found| found.message).collect(),
    }
}

/// What the API server would refuse of an OrdersService by the schema of the CRD.
pub fn refused(document: &Value) -> Vec<String> {
    schema::refusals(document, None).iter().map(ToString::to_string).collect()
}
