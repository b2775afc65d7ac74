//! From the rules of some Ingresses to the routes of one OrdersService.
//!
//! Every host of an Ingress that has one of the orders is taken, each with its own routes; what cannot be said stays where it
//! is, and is named.
//!
//! ```text
//! around       what is known besides them
//! host         a host of an Ingress
//! sources      the hosts of the OrdersService, and whose routes each gets
//! table        the routes of one host
//! spec         `spec.ingress`, from the routes of each host
//! certificate  which certificate the hosts have
//! kept         what stays in the old Ingresses
//! ```

mod around;
mod certificate;
mod host;
mod kept;
mod sources;
mod spec;
mod table;

use std::collections::BTreeSet;

use serde_json::Value;

pub(super) use self::around::Around;
use self::{
    host::{Host, is, parsed},
    kept::Kept,
    sources::{by_host, names, rules_of, sources},
    spec::Site,
};
use super::{
    finding::{Findings, Kind, Notes, Whom},
    ingress::{OldIngress, OldPath},
};

/// What becomes of the Ingresses.
#[derive(Default)]
pub(super) struct Translated {
    /// `spec.ingress`; none if no host leads to the orders.
    pub(super) ingress: Option<Value>,
    /// What of the old Ingresses goes on leading to the old Service of the orders.
    pub(super) to_orders: BTreeSet<String>,
    /// Whether it is at hosts of its own, beside the old Ingresses, which keep all of theirs.
    pub(super) is_beside: bool,
}

/// Translates the rules.
pub(super) fn translate(all: &[OldIngress], around: &Around<'_>, findings: &mut Findings) -> Translated {
    let by_host = by_host(all, findings);
    // That none of their hosts is one was said; it says all that there is to do.
    if by_host.is_empty() && all.iter().any(|ingress| ingress.rules.iter().any(|rule| rule.host.is_some())) {
        return Translated::default();
    }
    let leads = |paths: &Vec<(&OldIngress, &OldPath)>| {
        paths.iter().any(|(_, path)| path.backend.service == around.orders)
    };
    let mut ours: Vec<&Host> =
        by_host.iter().filter(|(_, paths)| leads(paths)).map(|(host, _)| host).collect();
    if ours.is_empty() {
        // A gateway, or the client, may have passed the requests on.
        if let [(host, _)] = by_host.iter().collect::<Vec<_>>().as_slice() {
            ours.push(host);
        }
        let text = format!(
            "no path of an Ingress leads to Service {}: {}",
            around.orders,
            if ours.is_empty() {
                "the OrdersService has no routes, and every rule stays in its Ingress; if the Service of the \
                 orders is another, name it with --orders SERVICE, or write spec.ingress"
            } else {
                "the only host now has a route to it at /api/orders; whatever forwarded its requests no longer does"
            }
        );
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
        if ours.is_empty() {
            return Translated::default();
        }
    }
    let mut kept = Kept::default();
    let mut sites = Vec::new();
    for source in sources(all, &by_host, &ours, around, &mut kept, findings) {
        let Some(paths) = by_host.get(&source.host) else { continue };
        let table = table::table(&source.host, paths, around, &mut kept, findings);
        for (ingress, rule) in rules_of(all, &source.host) {
            rule.without_service.iter().for_each(|path| kept.path(&ingress.name, &source.host, path, false));
        }
        sites.push(Site { source, table });
    }
    if sites.is_empty() {
        return Translated::default();
    }
    let has_rules = |ingress: &&OldIngress| {
        let is_of =
            |site: &Site| ingress.rules.iter().any(|rule| is(rule.host.as_deref(), &site.source.host));
        sites.iter().any(is_of)
    };
    let used: Vec<&OldIngress> = all.iter().filter(has_rules).collect();
    let ingress = spec::ingress(&mut sites, around, &used, &mut kept, findings);
    let named = parsed(&names(sites.iter().map(|site| &site.source)));
    let mut is_beside = true;
    for ingress in used {
        let of_a_name = |host: Option<&str>| host.is_none() || named.iter().any(|named| is(host, named));
        let is_replaced =
            around.hosts.is_empty() || ingress.rules.iter().any(|rule| of_a_name(rule.host.as_deref()));
        is_beside &= !is_replaced;
        retire(ingress, is_replaced, around, &kept, findings);
    }
    Translated { ingress: Some(ingress), to_orders: kept.into_orders(), is_beside }
}

/// What is to be done with an Ingress whose routes were taken.
fn retire(
    ingress: &OldIngress,
    is_replaced: bool,
    around: &Around<'_>,
    kept: &Kept,
    findings: &mut Findings,
) {
    let mut notes = Notes::about(&ingress.label, findings);
    if !is_replaced {
        return notes.stays(Whom::Users, "stays as it is, since --host names none of its hosts");
    }
    // Of that name is the new Ingress, too: that there are two is said of the name.
    if ingress.name == around.name {
        return;
    }
    let what = match kept.in_ingress(&ingress.name) {
        None => format!("delete it as docs/migration.md says, kubectl delete ingress {}", ingress.name),
        Some(of) if ingress.is_regex && kept.is_beside(&ingress.name) => format!(
            "take everything out of it but {of}; and these need another host, or plain prefixes in an Ingress without use-regex and \
             rewrite-target, which make regexes of all paths of the host"
        ),
        Some(of) => format!("take everything out of it but {of}"),
    };
    let names_no_host = ingress.rules.iter().all(|rule| rule.host.is_none());
    let which = match (names_no_host, around.hosts.is_empty()) {
        (false, _) => "is older than the new Ingress, so it has every path until it gives them up",
        (true, true) => {
            "has rules of any host and is older than the new Ingress, so it has every path until it gives them up; with your hosts named with \
             --host, once for each, these are served by the new one at once, and no request fails when this one goes"
        }
        (true, false) => "has what is for other hosts than those that --host names",
    };
    notes.later(format!("{which}: {what}"));
}
