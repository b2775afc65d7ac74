//! What was rendered, asked of more data planes: of some that take minutes to build, and of models of some that are not to be
//! had. `make test-planes` runs what is ignored here; the models are part of every run.
//!
//! ```text
//! questions    systems as their owners write them, requests, and the oracle
//! reading      what data planes make of a request's path before they compare it
//! backends     servers that say who they are, and Services that lead to them
//! rendered     what `render` makes of the systems
//! contour      Contour with Envoy, by Ingresses and by HTTPRoutes
//! traefik      Traefik's provider for ingress-nginx
//! first_match  HAProxy and Caddy, which take the first rule that matches
//! models       ALB, GCE, Kong, F5 NGINX and Envoy Gateway
//! ```

pub(crate) mod backends;
mod contour;
mod first_match;
mod models;
mod questions;
mod reading;
mod rendered;
mod traefik;
