//! The sweeper, run as a process under exactly the rights of the chart, against a real API server
//! and database.

use kube::api::{Patch, PatchParams};
use orders_operator::crd::OrdersService;
use serde_json::json;

use crate::cluster::TestNamespace;
