//! The sweeper, run as a process under exactly the rights of the chart, against a real API server
//! and database.

use serde_json::json;

use crate::cluster::TestNamespace;
