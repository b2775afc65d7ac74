//! All hosts, their rules in order, where each leads, and who else claims what: as text, as a flow chart, or as JSON.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write};

use serde::Serialize;

use super::{
    args::DrawingFormat,
    conflicts::AllClaims,
    error::RenderError,
    files::{OtherInFile, ServiceInFile},
};
use crate::{
    controller::claims::claimed::requested_of,
    routing::{EntryPoint, PathMatch, Refusal, Route, Site},
    runtime::Escape,
};

/// A host at one of the things that serve it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Drawn {
    host: String,
    /// An ingress class or a Gateway; none for the default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// The object that makes regexes of all paths here, so that the rules may mean something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    regexes_by: Option<String>,
    /// The rules in the order in which they are tried.
    rules: Vec<Rule>,
}

/// A rule of a resource, or of another object in the files.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    path: String,
    /// `exact`, `prefix` or `client`.
    kind: &'static str,
    /// The Service and its port; none for the rule of another object.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strip_prefix: bool,
    owner: String,
    /// Why it is not rendered.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_rendered: Option<String>,
    #[serde(skip)]
    order: PathMatch,
}

/// The drawing in this form.
pub(super) fn draw(
    services: &[ServiceInFile],
    others: &[OtherInFile],
    claims: &AllClaims<'_>,
    format: DrawingFormat,
) -> Result<String, RenderError> {
    let sites = sites(services, others, claims);
    let drawn: Vec<_> = sites
        .into_iter()
        .map(|(site, Found { mut rules, regexes_by })| {
            rules.sort_by(|left, right| (&left.order, &left.owner).cmp(&(&right.order, &right.owner)));
            let at = match &site.entry_point {
                EntryPoint::Class(class) => class.as_ref().map(|class| format!("class {class}")),
                EntryPoint::Gateway(gateway) => Some(format!("Gateway {gateway}")),
            };
            Drawn { host: site.host.to_string(), at, regexes_by, rules }
        })
        .collect();
    Ok(match format {
        DrawingFormat::Text => text(&drawn)?,
        DrawingFormat::Mermaid => mermaid(&drawn)?,
        DrawingFormat::Dot => dot(&drawn)?,
        DrawingFormat::Json => serde_json::to_string_pretty(&drawn)? + "\n",
    })
}

/// What is found of a host at one of the things that serve it.
#[derive(Default)]
struct Found {
    rules: Vec<Rule>,
    regexes_by: Option<String>,
}

/// The rules of each host that a resource names, those of others among them.
fn sites(
    services: &[ServiceInFile],
    others: &[OtherInFile],
    claims: &AllClaims<'_>,
) -> BTreeMap<Site, Found> {
    let mut sites = BTreeMap::<Site, Found>::new();
    for found in services {
        let me = found.claimant();
        for requested in requested_of(&found.service) {
            let verdicts = claims.verdicts(&me, &requested);
            for of in &requested.hosts {
                for site in requested.sites_of(&of.host) {
                    let verdict = verdicts.get(&site);
                    let refused =
                        verdict.and_then(|verdict| verdict.refused.as_ref()).map(|refused| match refused {
                            Refusal::NotAllowed => "the host is not allowed for the namespace".to_owned(),
                            Refusal::OwnedBy(owner) => format!("the host belongs to {}", claims.named(owner)),
                        });
                    let lost = |path: &PathMatch| {
                        let winner = verdict.and_then(|verdict| verdict.lost.get(path))?;
                        Some(format!("{} has it", claims.named(winner)))
                    };
                    let rules = of.routes.iter().map(|route| Rule {
                        path: route.path.to_string(),
                        kind: kind(route),
                        to: Some(route.backend.to_string()),
                        strip_prefix: route.strip_prefix,
                        owner: me.to_string(),
                        not_rendered: refused.clone().or_else(|| lost(&route.path)),
                        order: route.path.clone(),
                    });
                    let regexes_by = verdict.and_then(|verdict| claims.regexes(&site, verdict));
                    let found = sites.entry(site).or_default();
                    found.rules.extend(rules);
                    found.regexes_by = found.regexes_by.take().or(regexes_by);
                }
            }
        }
    }
    for OtherInFile { claimant, claims: of_other, .. } in others {
        for claim in of_other {
            let (Some(path), Some(found)) = (&claim.path, sites.get_mut(&claim.site)) else { continue };
            found.rules.push(Rule {
                path: path.to_string(),
                kind: if path.is_exact() { "exact" } else { "prefix" },
                to: None,
                strip_prefix: false,
                owner: claims.named(claimant),
                not_rendered: None,
                order: path.clone(),
            });
        }
    }
    sites
}

fn kind(route: &Route) -> &'static str {
    match route {
        Route { client: true, .. } => "client",
        Route { path, .. } if path.is_exact() => "exact",
        _ => "prefix",
    }
}

impl Drawn {
    fn title(&self) -> String {
        let host = if self.host == "*" { "every other host" } else { &self.host };
        self.at.as_ref().map_or_else(|| host.to_owned(), |at| format!("{host} ({at})"))
    }

    /// With what makes its rules mean something else.
    fn warned_title(&self) -> String {
        let regexes = self
            .regexes_by
            .as_ref()
            .map(|other| format!(": every path is a regex, by {other}"))
            .unwrap_or_default();
        format!("{}{regexes}", self.title())
    }
}

impl Rule {
    /// What it takes.
    fn taken(&self) -> String {
        let strips = if self.strip_prefix { ", taken off" } else { "" };
        match self.kind {
            "prefix" => format!("{}{strips}", self.path),
            kind => format!("{} ({kind}{strips})", self.path),
        }
    }

    /// Where it leads.
    fn target(&self) -> String {
        self.to.clone().unwrap_or_else(|| self.owner.clone())
    }
}

/// A text of the files as it is shown: it may have line breaks, and what a terminal obeys.
fn line(text: &str) -> Cow<'_, str> {
    Escape::Text.line(text)
}

fn text(drawn: &[Drawn]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for (at, site) in drawn.iter().enumerate() {
        writeln!(text, "{}{}", if at == 0 { "" } else { "\n" }, line(&site.title()))?;
        if let Some(other) = &site.regexes_by {
            writeln!(
                text,
                "  !   ingress-nginx reads every path here as a regex: {} has use-regex or rewrite-target",
                line(other)
            )?;
        }
        let width = site.rules.iter().map(|rule| rule.taken().chars().count()).max().unwrap_or_default();
        for (number, rule) in site.rules.iter().enumerate() {
            let owner = rule.to.as_ref().map_or_else(String::new, |_| format!("  {}", rule.owner));
            let (mark, why) = match &rule.not_rendered {
                Some(why) => ('x', format!(": not rendered, since {why}")),
                None => ('>', String::new()),
            };
            let led = format!("{}{owner}{why}", rule.target());
            writeln!(text, "  {:>2}. {:<width$} -{mark} {}", number + 1, rule.taken(), line(&led))?;
        }
    }
    Ok(text)
}

/// Each host, its rules, and the Services to which they lead; a Service of several rules is one node.
fn mermaid(drawn: &[Drawn]) -> Result<String, std::fmt::Error> {
    let quoted = |text: &str| line(text).replace('"', "#quot;");
    let mut text = "flowchart LR\n".to_owned();
    let mut targets = Targets::default();
    for (at, site) in drawn.iter().enumerate() {
        writeln!(text, "  host{at}[\"{}\"]", quoted(&site.warned_title()))?;
        for (number, rule) in site.rules.iter().enumerate() {
            let (target, is_new) = targets.of(rule);
            let arrow = if rule.not_rendered.is_some() { "-.->" } else { "-->" };
            let label = quoted(&rule.labelled(number));
            let named = if is_new { format!("([\"{}\"])", quoted(&rule.target())) } else { String::new() };
            writeln!(text, "  host{at} {arrow}|\"{label}\"| target{target}{named}")?;
        }
    }
    Ok(text)
}

fn dot(drawn: &[Drawn]) -> Result<String, std::fmt::Error> {
    let quoted = |text: &str| line(text).replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = "digraph routes {\n  rankdir=LR;\n".to_owned();
    let mut targets = Targets::default();
    for (at, site) in drawn.iter().enumerate() {
        writeln!(text, "  host{at} [shape=box, label=\"{}\"];", quoted(&site.warned_title()))?;
        for (number, rule) in site.rules.iter().enumerate() {
            let (target, is_new) = targets.of(rule);
            if is_new {
                writeln!(text, "  target{target} [label=\"{}\"];", quoted(&rule.target()))?;
            }
            let style = if rule.not_rendered.is_some() { ", style=dashed" } else { "" };
            let label = quoted(&rule.labelled(number));
            writeln!(text, "  host{at} -> target{target} [label=\"{label}\"{style}];")?;
        }
    }
    Ok(text + "}\n")
}

impl Rule {
    fn labelled(&self, number: usize) -> String {
        let why = self.not_rendered.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        // Not "1.", which Mermaid takes for a list, and does not draw.
        format!("{}) {}{why}", number + 1, self.taken())
    }
}

/// The numbers of the nodes to which rules lead.
#[derive(Default)]
struct Targets(BTreeMap<(String, String), usize>);

impl Targets {
    /// The number of the node, and whether it is a new one. Services of the same name are one if one namespace has them.
    fn of(&mut self, rule: &Rule) -> (usize, bool) {
        let namespace = rule.owner.split('/').next().unwrap_or_default().to_owned();
        let next = self.0.len();
        let number = *self.0.entry((namespace, rule.target())).or_insert(next);
        (number, number == next)
    }
}
