//! The report as text.

use std::fmt::{self, Write};

use super::{
    events::EventView,
    report::{BrokerView, ConditionView, PodView, Report},
};
use crate::{
    crd::RenderedRoute,
    osvc::paint::{Paint, plain},
};

/// The report as text.
///
/// # Errors
/// None that can happen: text is written to memory.
pub(super) fn text(report: &Report, paint: Paint) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let Report { namespace, name, ready, reason, message, url, image, .. } = report;
    let verdict = if *ready { paint.good("ready") } else { paint.bad("not ready") };
    writeln!(text, "{}: {verdict} ({})", paint.heading(&format!("{namespace}/{name}")), plain(reason))?;
    writeln!(text, "  {}", plain(message))?;
    for (what, value) in [("url", url), ("image", image)] {
        if let Some(value) = value {
            writeln!(text, "  {what:<6} {}", plain(value))?;
        }
    }
    heading(&mut text, paint, "Conditions")?;
    report.conditions.iter().try_for_each(|view| condition(&mut text, paint, view))?;
    routes(&mut text, paint, report)?;
    if let Some(all) = &report.pods {
        heading(&mut text, paint, "Pods")?;
        if all.is_empty() {
            writeln!(text, "  {}", paint.dim("none"))?;
        }
        all.iter().try_for_each(|view| pod(&mut text, paint, view))?;
    }
    heading(&mut text, paint, "Expiry")?;
    match &report.expiry {
        Some(expiry) => {
            let time = expiry.last_sweep_time.as_ref().map_or("never".to_owned(), |time| time.0.to_string());
            let (total, overdue) = (expiry.expired_total, expiry.oldest_overdue_seconds);
            writeln!(
                text,
                "  {} orders expired, the oldest overdue by {} s, as of {time}",
                total.unwrap_or(0),
                overdue.unwrap_or(0)
            )?;
        }
        None => writeln!(text, "  {}", paint.dim("the sweeper has not reported yet"))?,
    }
    if let Some(BrokerView { kind, servers, flowing, reason }) = &report.broker {
        heading(&mut text, paint, "Broker")?;
        let reason = reason.as_deref().unwrap_or("nothing is reported yet");
        let flows = match flowing {
            Some(true) => paint.good("flowing"),
            Some(false) => paint.bad("not flowing"),
            None => paint.doubtful("unknown"),
        };
        writeln!(text, "  {kind} at {}: {flows} ({})", plain(servers), plain(reason))?;
    }
    if let Some(all) = report.events.as_ref().filter(|all| !all.is_empty()) {
        heading(&mut text, paint, "Events, the latest first")?;
        all.iter().try_for_each(|view| event(&mut text, paint, view))?;
    }
    if !report.unknown.is_empty() {
        heading(&mut text, paint, "Not known")?;
        report.unknown.iter().try_for_each(|what| writeln!(text, "  {}", paint.doubtful(what)))?;
    }
    Ok(text)
}

fn heading(text: &mut String, paint: Paint, title: &str) -> fmt::Result {
    writeln!(text, "\n{}", paint.heading(title))
}

fn condition(text: &mut String, paint: Paint, view: &ConditionView) -> fmt::Result {
    let ConditionView { condition, current } = view;
    // Being worked on, or stalled, is nothing good.
    let is_good = condition.status == "True" && !["Reconciling", "Stalled"].contains(&&*condition.type_);
    let status = format!("{:<7}", condition.status);
    let status = match (current, is_good) {
        (true, true) if condition.reason == "AsExpected" => paint.good(&status),
        (true, false) => paint.bad(&status),
        _ => paint.doubtful(&status),
    };
    let (kind, since) = (format!("{:<13}", condition.type_), condition.last_transition_time.0);
    let former = if *current { "" } else { ", about an earlier spec" };
    writeln!(
        text,
        "  {status} {} {} {}",
        plain(&kind),
        plain(&condition.reason),
        paint.dim(&format!("since {since}{former}"))
    )?;
    // The summary is above, and these two repeat it.
    let is_told = ["Ready", "Reconciling", "Stalled"].contains(&&*condition.type_);
    if condition.reason != "AsExpected" && !is_told {
        writeln!(text, "          {}", plain(&condition.message))?;
    }
    Ok(())
}

fn routes(text: &mut String, paint: Paint, report: &Report) -> fmt::Result {
    heading(text, paint, "Routes, in the order in which they are tried")?;
    if report.routes.is_empty() {
        writeln!(text, "  {}", paint.dim("none is rendered"))?;
    }
    let width = report.routes.iter().map(|route| route.path.chars().count()).max().unwrap_or_default();
    let mut number = 0;
    let mut former = None;
    for route in &report.routes {
        let RenderedRoute { host, path, service, exact, strip_prefix, client } = route;
        if former.replace(host) != Some(host) {
            let shown = if host == "*" { "every other host" } else { host };
            writeln!(text, "  {}", plain(shown))?;
            number = 0;
        }
        number += 1;
        let marks = [(*exact, "this path alone"), (*strip_prefix, "taken off"), (*client, "the client")];
        let marks: Vec<_> = marks.into_iter().filter(|(is_so, _)| *is_so).map(|(_, mark)| mark).collect();
        let marks = if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
        writeln!(text, "  {number:>4}. {}", plain(&format!("{path:<width$} -> {service}{marks}")))?;
    }
    for missing in &report.not_rendered {
        let told =
            format!("not rendered: {}{} -> {}: {}", missing.host, missing.path, missing.service, missing.why);
        writeln!(text, "  {}", paint.bad(&told))?;
    }
    for missing in &report.kept_from_others {
        let told =
            format!("conflict: OrdersService {} asks for {}{} too", missing.of, missing.host, missing.path);
        writeln!(text, "  {}", paint.doubtful(&told))?;
    }
    Ok(())
}

fn event(text: &mut String, paint: Paint, view: &EventView) -> fmt::Result {
    let EventView { time, count, kind, reason, message } = view;
    let kind = if kind == "Warning" { paint.doubtful(kind) } else { plain(kind).into_owned() };
    let times = if *count == 1 { String::new() } else { format!(", {count} times") };
    let time = time.map_or_else(String::new, |time| paint.dim(&format!(" at {time:.0}{times}")));
    writeln!(text, "  {kind} {}{time}", plain(reason))?;
    writeln!(text, "    {}", plain(message))
}

fn pod(text: &mut String, paint: Paint, view: &PodView) -> fmt::Result {
    let PodView { name, ready, phase, restarts, image, waits, last_words } = view;
    let ready = if *ready { paint.good("ready    ") } else { paint.bad("not ready") };
    let times = if *restarts == 1 { "restart" } else { "restarts" };
    writeln!(text, "  {ready} {} {}, {restarts} {times}, {}", plain(name), plain(phase), plain(image))?;
    for (what, words) in [("waits", waits), ("last", last_words)] {
        if let Some(words) = words {
            writeln!(text, "            {what}: {}", plain(words))?;
        }
    }
    Ok(())
}
