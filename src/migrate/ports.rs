//! Whether the ports that Ingresses name are those of the Services that they lead to.

use std::collections::BTreeMap;

use super::{
    finding::{Findings, Notes, Whom},
    ingress::{OldBackend, OldIngress, OldPort},
    workload::OldService,
};

/// Says which Services do not have the port by which an Ingress leads to them, of those that were read.
pub(super) fn check(
    ingresses: &[OldIngress],
    services: &BTreeMap<String, OldService>,
    orders: &str,
    findings: &mut Findings,
) {
    for ingress in ingresses {
        let paths = ingress.rules.iter().flat_map(|rule| &rule.paths).map(|path| &path.backend);
        for backend in paths.chain(&ingress.default) {
            let Some((port, there)) = missing(backend, services) else { continue };
            let mut notes = Notes::about(&ingress.label, findings);
            let told = format!(
                "{} is {port}, which Service {} does not have; it has {there}",
                backend.port_at, backend.service
            );
            if backend.service == orders {
                let told = format!(
                    "{told}: no request has reached the orders there; the new Ingress leads to the port of the new Service"
                );
                notes.changed(Whom::Users, told);
            } else {
                notes.left(
                    Whom::Users,
                    format!("{told}: the route has it as it is; write the right one there"),
                );
            }
        }
    }
}

/// A port that its Service does not have, and those that it has.
fn missing(backend: &OldBackend, services: &BTreeMap<String, OldService>) -> Option<(String, String)> {
    let service = services.get(&backend.service).filter(|service| !service.ports.is_empty())?;
    let (port, is_there) = match backend.port.as_ref()? {
        OldPort::Number(number) => {
            (number.to_string(), service.ports.iter().any(|port| i64::from(*port) == *number))
        }
        OldPort::Name(name) => (format!("{name:?}"), service.port_names.contains(name)),
    };
    let numbers = service.ports.iter().map(ToString::to_string);
    let there: Vec<_> = numbers.chain(service.port_names.iter().map(|name| format!("{name:?}"))).collect();
    (!is_there).then(|| (port, there.join(", ")))
}
