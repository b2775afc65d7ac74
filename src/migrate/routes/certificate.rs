//! Which certificate the hosts have.

use super::host::parsed;
use crate::{
    migrate::{
        finding::{Findings, Kind, Whom},
        ingress::OldIngress,
    },
    routing::CanonicalHost,
};

/// The Secret of the certificate: the first that is named for one of the hosts.
pub(super) fn certificate(used: &[&OldIngress], hosts: &[String], findings: &mut Findings) -> Option<String> {
    let hosts: Vec<CanonicalHost> = parsed(hosts).into_iter().flatten().collect();
    let (mut secrets, mut others) = (Vec::<&str>::new(), Vec::<&str>::new());
    for ingress in used {
        for (named, secret) in &ingress.tls {
            let is_of_others = !hosts.is_empty() && !hosts.iter().any(|host| is_for(ingress, named, host));
            let known = if is_of_others { &mut others } else { &mut secrets };
            match secret {
                Some(secret) if !known.contains(&secret.as_str()) => known.push(secret),
                Some(_) => {}
                None => findings.add(
                    Kind::Left,
                    Whom::Users,
                    &ingress.label,
                    format!(
                        "spec.tls of {} names no Secret, so the ingress controller's own certificate was served: an OrdersService names a \
                         Secret in spec.ingress.tls.secretName; without it many controllers serve the same one, and do not redirect to \
                         HTTPS",
                        named.join(", ")
                    ),
                ),
            }
        }
    }
    if let [first, _, ..] = secrets.as_slice() {
        let text = format!(
            "the certificates are in several Secrets ({}), and an OrdersService has one for all its hosts: {first}; see that it is for \
             all of them",
            secrets.join(", ")
        );
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
    }
    if !hosts.is_empty() {
        unserved(used, &hosts, findings);
    }
    let has_tls = |host: &CanonicalHost| {
        used.iter().any(|ingress| ingress.tls.iter().any(|(named, _)| is_for(ingress, named, host)))
    };
    let without: Vec<_> = hosts.iter().filter(|host| !has_tls(host)).map(ToString::to_string).collect();
    let without = without.join(", ");
    let text = match (secrets.first(), others.as_slice()) {
        _ if without.is_empty() => None,
        (None, []) => None,
        (None, others) => Some(format!(
            "the certificate in Secret {} is not for {without}, so spec.ingress.tls is left out: write in its secretName a Secret with a \
             certificate for {without}; if cert-manager is to make it, one that no other Ingress names",
            others.join(", ")
        )),
        (Some(secret), _) => Some(format!(
            "spec.tls has no certificate for {without}, and that of the OrdersService, in Secret {secret}, is served at all its hosts, \
             where many controllers then redirect to HTTPS: see that it is for {without} too, or take these out of spec.ingress.hosts, \
             and write them in an Ingress of your own"
        )),
    };
    if let Some(text) = text {
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
    }
    secrets.first().map(|secret| (*secret).to_owned())
}

/// Says which hosts have a certificate, but no rule: the new Ingress does not have them.
fn unserved(used: &[&OldIngress], hosts: &[CanonicalHost], findings: &mut Findings) {
    for ingress in used {
        let of_rules =
            ingress.rules.iter().filter_map(|rule| CanonicalHost::parse(rule.host.as_deref()?).ok());
        let served: Vec<CanonicalHost> = hosts.iter().cloned().chain(of_rules).collect();
        for (at, (named, secret)) in ingress.tls.iter().enumerate() {
            let is_served = |text: &str| served.iter().any(|host| is_like(text, host));
            let unserved: Vec<_> = named.iter().map(String::as_str).filter(|text| !is_served(text)).collect();
            if unserved.is_empty() {
                continue;
            }
            let all = unserved.join(", ");
            let of = secret.as_deref().map(|secret| format!(" (Secret {secret})")).unwrap_or_default();
            let text = format!(
                "spec.tls[{at}]{of} is for {all}, without any rule, so this entry was left out of the \
                 OrdersService: if requests for {all} are answered, as by a redirect, write an Ingress of your own \
                 for it, with this certificate; otherwise ignore it"
            );
            findings.add(Kind::Left, Whom::Users, &ingress.label, text);
        }
    }
}

/// Whether a certificate for what is named so is for a host.
fn is_like(named: &str, host: &CanonicalHost) -> bool {
    let above = host.wildcard_above();
    CanonicalHost::parse(named).is_ok_and(|named| named == *host || above.as_ref() == Some(&named))
}

/// Whether a certificate is for a host, by the hosts that `spec.tls` names for it; where these are none, by those of the rules.
fn is_for(ingress: &OldIngress, named: &[String], host: &CanonicalHost) -> bool {
    let is_it = |text: &str| is_like(text, host);
    if named.is_empty() {
        ingress.rules.iter().any(|rule| rule.host.as_deref().is_none_or(is_it))
    } else {
        named.iter().any(|text| is_it(text))
    }
}
