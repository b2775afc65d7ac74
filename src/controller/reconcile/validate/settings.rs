//! What an OrdersService says of itself: its name, image, ports and times, and the name of its database.

use kube::ResourceExt;

use super::validated::ADMIN_PORT;
use crate::{
    controller::claims::route_list::{is_port, is_service_name},
    crd::{OrdersService, OrdersServiceSpec},
};

/// Checks the name of the resource, from which those of the children are made.
pub(super) fn check_name(service: &OrdersService, invalid: &mut impl FnMut(String)) {
    let name = service.name_any();
    if service.metadata.name.as_ref().is_none_or(String::is_empty) {
        let prefix = service.metadata.generate_name.as_ref();
        invalid(format!(
            "metadata.name is not set: write the name, such as orders{}",
            prefix.map_or(
                "",
                |_| "; generateName is not enough, since the names of the children are made from it"
            )
        ));
    } else if name.len() > 52 {
        invalid(format!(
            "metadata.name {name:?} has {} characters: at most 52, for the names of the children",
            name.len()
        ));
    }
    // One that is too long is told as that alone.
    else if !is_service_name(&name) {
        invalid(format!(
            "metadata.name {name:?} cannot name a Service: it must begin with a letter, end with a letter or digit, and have \
             only a-z, 0-9 and -"
        ));
    }
}

/// The image of the pods: that of the controller where the spec names none.
pub(super) fn image<'a>(
    spec: &'a OrdersServiceSpec,
    default_image: Option<&'a str>,
    invalid: &mut impl FnMut(String),
) -> &'a str {
    let image = spec.image.as_deref().or(default_image).map(str::trim).unwrap_or_default();
    if image.contains(char::is_whitespace) {
        invalid(format!(
            "spec.image is {image:?}, and no image has a space in its name: write one such as orders:1"
        ));
    }
    if spec.image.as_deref().is_some_and(|image| image.trim().is_empty()) {
        invalid("spec.image is empty: remove it, or name an image".into());
    } else if image.is_empty() {
        invalid(
            "spec.image is not set, and the controller runs without --default-image: set spec.image".into(),
        );
    }
    image
}

/// Checks the port, and the name of the second Service.
pub(super) fn check_ports(spec: &OrdersServiceSpec, invalid: &mut impl FnMut(String)) {
    if !is_port(spec.port) || spec.port == ADMIN_PORT {
        invalid(format!(
            "spec.port is {}: write a port from 1 to 65535, but not {ADMIN_PORT}, the admin port",
            spec.port
        ));
    }
    if let Some(other) = spec.service_name.as_deref().filter(|other| !is_service_name(other)) {
        invalid(format!(
            "spec.serviceName is {other:?}, which no Service can have as its name: write lower-case letters, digits and -, \
             beginning with a letter, such as orders-srv"
        ));
    }
}

/// Checks the times, and the limit of the sweeper.
pub(super) fn check_times(spec: &OrdersServiceSpec, invalid: &mut impl FnMut(String)) {
    let drain = spec.drain_seconds;
    if !(0..=3600).contains(&drain) {
        invalid(format!("spec.drainSeconds is {drain}: write seconds from 0 to 3600"));
    }
    let (window, grace) = (spec.expiration.window_seconds, spec.expiration.payment_grace_seconds);
    if !(1..=604_800).contains(&window) {
        invalid(format!(
            "spec.expiration.windowSeconds is {window}: write seconds from 1 to 604800 (one week)"
        ));
    }
    if !(0..=604_800).contains(&grace) {
        invalid(format!(
            "spec.expiration.paymentGraceSeconds is {grace}: write seconds from 0 to 604800 (one week)"
        ));
    }
    if let Some(most) = spec.expiration.max_per_second.filter(|most| !(1..=1_000_000).contains(most)) {
        invalid(format!("spec.expiration.maxPerSecond is {most}: write orders per second from 1 to 1000000"));
    }
}

/// Checks the name of the database.
pub(super) fn check_database(spec: &OrdersServiceSpec, invalid: &mut impl FnMut(String)) {
    if spec.database.name.as_deref().is_some_and(|name| !is_database_name(name)) {
        invalid(
            "spec.database.name cannot be the name of a MongoDB database: write 1 to 63 characters without / \\ . \" $ * < > \
             : | ? and spaces, such as orders; a connection string belongs in the Secret of uriSecretRef"
                .into(),
        );
    }
}

fn is_database_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.contains(['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?'])
}
