//! From the variables of the Node.js service to what an OrdersService says of the database, the sessions and the broker.

use serde_json::{Map, Value, json};

use super::{
    environment::{Environment, Origin, Stores},
    finding::{Findings, Notes, Whom},
};

/// A Secret to be made, since its value was a literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewSecret {
    /// Its name.
    pub(super) name: String,
    /// Its key.
    pub(super) key: String,
    /// The value.
    pub(super) value: String,
    /// Where the value was.
    pub(super) from: String,
}

/// What was read of the variables.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Fields of the spec.
    pub(super) spec: Map<String, Value>,
    /// The Secrets to be made.
    pub(super) secrets: Vec<NewSecret>,
}

/// Variables that only Node.js, or the container's own image, reads.
const OF_NODE: [&str; 8] = [
    "NODE_ENV",
    "NODE_OPTIONS",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "NODE_EXTRA_CA_CERTS",
    "CHOKIDAR_USEPOLLING",
    "TZ",
    "HOST",
    "DEBUG",
];

/// Variables that the API reads too, and that the OrdersService can give it.
const OF_BOTH: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "LOG_FORMAT"];

/// Reads the variables; `name` is that of the OrdersService, which has no events if it `is_passive`.
pub(super) fn read(
    mut environment: Environment,
    name: &str,
    is_passive: bool,
    stores: &Stores,
    notes: &mut Notes<'_>,
) -> Connections {
    let mut read = Connections::default();
    // Before a variable is taken out: the Secret of any of them is there already.
    let [mongo, jwt, nats] =
        ["mongo", "jwt", "nats"].map(|part| free_secret(&format!("{name}-{part}"), &environment, stores));
    database(&mut environment, &mongo, &mut read, notes);
    sessions(&mut environment, &jwt, &mut read, notes);
    if is_passive {
        // Of what it does not have nothing is to be said or made; the variables are taken out all the same.
        let (mut unused, mut unsaid) = (Connections::default(), Findings::default());
        events(&mut environment, &nats, &mut unused, &mut Notes::about("", &mut unsaid));
    } else {
        events(&mut environment, &nats, &mut read, notes);
    }
    environment.forget_used();
    rest(environment, notes);
    read
}

/// A name like this of which no Secret is, neither among the inputs nor behind a variable.
fn free_secret(name: &str, environment: &Environment, stores: &Stores) -> String {
    let is_free = |secret: &String| {
        let is_it =
            |_: &str, origin: &Origin| matches!(origin, Origin::Secret { name, .. } if name == secret);
        !stores.has_secret(secret)
            && !environment.whole_secrets.contains(secret)
            && environment.names_where(is_it).is_empty()
    };
    let numbered = (2..100).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_else(|| name.to_owned())
}

fn is_mongo(text: &str) -> bool {
    text.starts_with("mongodb://") || text.starts_with("mongodb+srv://")
}

/// Whether the name of a variable has all of these words, and none of the others.
fn has_words(name: &str, all: &[&[&str]]) -> bool {
    let words: Vec<_> = name.split('_').map(str::to_ascii_uppercase).collect();
    all.iter().all(|any| any.iter().any(|word| words.iter().any(|has| has == word)))
}

fn database(environment: &mut Environment, free: &str, read: &mut Connections, notes: &mut Notes<'_>) {
    let found = match environment.remove("MONGO_URI") {
        Some(origin) => Some(("MONGO_URI".to_owned(), origin)),
        None => environment
            .remove_where(|_, origin| matches!(origin, Origin::Literal(text) if is_mongo(text)))
            .or_else(|| {
                environment.remove_where(|name, _| {
                    has_words(
                        name,
                        &[&["MONGO", "MONGODB", "DB", "DATABASE"], &["URI", "URL", "CONN", "CONNECTION"]],
                    )
                })
            }),
    };
    let to_be_made = |why: &str, notes: &mut Notes<'_>| {
        notes.left(
            Whom::You,
            format!(
                "{why}: before you apply the OrdersService, make Secret {free:?} with the whole connection string of the \
                 orders' database: kubectl create secret generic {free} --from-literal=MONGO_URI=mongodb://HOST:27017/DATABASE"
            ),
        );
        json!({"name": free})
    };
    let reference = match found {
        Some((variable, Origin::Secret { name, key })) => {
            notes.changed(
                Whom::Pods,
                format!(
                    "{variable} is read from Secret {name:?} as before; if its connection string names no database, mongoose \
                     used \"test\": then set spec.database.name: test"
                ),
            );
            with_key(&name, &key, "MONGO_URI")
        }
        Some((variable, Origin::Literal(text))) => match environment.expanded(&text) {
            Ok(value) if is_mongo(&value) => {
                if let Some(why) = odd_uri(&value) {
                    notes.left(
                        Whom::You,
                        format!("{variable} {why}: correct it in Secret {free:?} below before you apply it"),
                    );
                }
                if !names_database(&value) {
                    read.spec.insert("database".into(), json!({"name": "test"}));
                    notes.changed(
                        Whom::Pods,
                        format!(
                            "{variable} names no database, so mongoose has stored the orders in \"test\": spec.database.name says \
                             so (it cannot be changed later)"
                        ),
                    );
                }
                new_secret(free, "MONGO_URI", value, &variable, read, notes)
            }
            Ok(_) => to_be_made(&format!("{variable} is not a MongoDB connection string"), notes),
            Err(part) => to_be_made(
                &format!("{variable} is put together from {part}, whose value is not in the manifest"),
                notes,
            ),
        },
        Some((variable, Origin::Elsewhere(place))) => to_be_made(&is_in(&variable, &place), notes),
        Some((variable, Origin::Pod)) => to_be_made(&is_of_pod(&variable), notes),
        None => match environment.whole_secrets.as_slice() {
            [one] => of_whole_secret(one, "MONGO_URI", "spec.database.uriSecretRef.key", notes),
            _ => to_be_made("no variable has a connection string of MongoDB (it may be in the code)", notes),
        },
    };
    let database = read.spec.entry("database").or_insert_with(|| json!({}));
    if let Some(database) = database.as_object_mut() {
        database.insert("uriSecretRef".into(), reference);
    }
}

fn is_in(variable: &str, place: &str) -> String {
    format!("the value of {variable} is in {place}")
}

fn is_of_pod(variable: &str) -> String {
    format!("{variable} is a field of the pod")
}

/// The reference to a Secret of which nobody knows whether it has this key.
fn of_whole_secret(secret: &str, key: &str, field: &str, notes: &mut Notes<'_>) -> Value {
    notes.left(
        Whom::You,
        format!(
            "all keys of Secret {secret:?} are variables, and it is not among the inputs: {key} is taken to be one of them; see \
             that it is, or write the right key in {field}"
        ),
    );
    json!({"name": secret})
}

/// What is wrong with a connection string; without its value, which may have a password.
fn odd_uri(uri: &str) -> Option<&'static str> {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    if hosts.split(',').any(str::is_empty) {
        return Some("names no host where one must be, as in mongodb://HOST:27017/DATABASE");
    }
    user.contains('@').then_some("has an @ in its user or password, which must be written %40")
}

/// Whether a connection string has the name of a database.
fn names_database(uri: &str) -> bool {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let rest = rest.split('?').next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, location)| location);
    rest.split_once('/').is_some_and(|(_, database)| !database.is_empty())
}

fn sessions(environment: &mut Environment, free: &str, read: &mut Connections, notes: &mut Notes<'_>) {
    let found = match environment.remove("JWT_KEY") {
        Some(origin) => Some(("JWT_KEY".to_owned(), origin)),
        None => environment.remove_where(|name, _| {
            has_words(name, &[&["JWT"], &["KEY", "SECRET"]])
                || ["JWT_TOKEN", "JWTKEY", "JWTSECRET"].contains(&name)
        }),
    };
    let to_be_made = |why: &str, notes: &mut Notes<'_>| {
        notes.left(
            Whom::You,
            format!(
                "{why}: spec.auth.jwtSecretRef names Secret \"jwt-secret\" with the key JWT_KEY; see that it is there and has the \
                 key that the auth service signs sessions with: kubectl create secret generic jwt-secret \
                 --from-literal=JWT_KEY=..."
            ),
        );
        json!({"name": "jwt-secret"})
    };
    let reference = match found {
        Some((_, Origin::Secret { name, key })) => with_key(&name, &key, "JWT_KEY"),
        Some((variable, Origin::Literal(text))) => match environment.expanded(&text) {
            Ok(value) if !value.is_empty() => new_secret(free, "JWT_KEY", value, &variable, read, notes),
            _ => to_be_made(
                &format!("{variable} is empty, or put together from values that are not in the manifest"),
                notes,
            ),
        },
        Some((variable, Origin::Elsewhere(place))) => to_be_made(&is_in(&variable, &place), notes),
        Some((variable, Origin::Pod)) => to_be_made(&is_of_pod(&variable), notes),
        None => match environment.whole_secrets.as_slice() {
            [one] => of_whole_secret(one, "JWT_KEY", "spec.auth.jwtSecretRef.key", notes),
            _ => to_be_made("no variable has the session key (such as JWT_KEY)", notes),
        },
    };
    read.spec.insert("auth".into(), json!({"jwtSecretRef": reference}));
}

fn events(environment: &mut Environment, free: &str, read: &mut Connections, notes: &mut Notes<'_>) {
    let url = environment.remove("NATS_URL").map(|origin| ("NATS_URL".to_owned(), origin)).or_else(|| {
        environment.remove_where(|name, origin| {
            has_words(name, &[&["NATS"], &["URL", "URI", "SERVER", "SERVERS", "HOST"]])
                || matches!(origin, Origin::Literal(text) if text.starts_with("nats://"))
        })
    });
    let cluster = environment.remove("NATS_CLUSTER_ID").map(|origin| ("NATS_CLUSTER_ID".to_owned(), origin));
    if environment.remove("NATS_CLIENT_ID").is_some() {
        notes.dropped(Whom::Pods, "NATS_CLIENT_ID: each pod automatically has its own client id");
    }
    let nats = match url {
        None => {
            if cluster.is_none() {
                notes.left(
                    Whom::Services,
                    "no variable names a NATS server, so the OrdersService has no spec.events: it then receives no \
                     payments and publishes no events; if the address is in your code, add events: {nats: \
                     {servers: [\"nats://HOST:4222\"]}}",
                );
                return;
            }
            notes.left(
                Whom::Services,
                "NATS_CLUSTER_ID is set, but no variable names a server: spec.events.nats.servers is set to the \
                 address in the course, nats://nats-srv:4222; correct it",
            );
            json!({"servers": ["nats://nats-srv:4222"]})
        }
        Some((_, Origin::Secret { name, key })) => json!({"urlSecretRef": with_key(&name, &key, "NATS_URL")}),
        Some((variable, Origin::Literal(text))) => match environment.expanded(&text) {
            Ok(value) => match servers(&value) {
                Some(servers) => json!({"servers": servers}),
                None => {
                    let reference = new_secret(free, "NATS_URL", value, &variable, read, notes);
                    json!({"urlSecretRef": reference})
                }
            },
            Err(part) => unknown_url(&format!("{variable} is put together from {part}"), notes),
        },
        Some((variable, Origin::Elsewhere(place))) => unknown_url(&is_in(&variable, &place), notes),
        Some((variable, Origin::Pod)) => unknown_url(&is_of_pod(&variable), notes),
    };
    let mut events = json!({"nats": nats});
    match cluster {
        Some((_, Origin::Literal(id))) if is_id(&id) => {
            events["streaming"] = json!({"clusterId": id});
            notes.changed(
                Whom::Services,
                "the broker stays NATS Streaming, and the other services stay as they are, if the queue group in your code is \
                 orders-service; otherwise name it in spec.events.streaming.durable",
            );
        }
        Some((_, Origin::Literal(id))) if environment.expanded(&id).is_ok() => notes.left(
            Whom::Services,
            format!(
                "NATS_CLUSTER_ID is {id:?}, which is no id of a cluster: letters, digits, - and _; the broker is NATS Streaming; add its id \
                 to spec.events, as in streaming: {{clusterId: ticketing}}"
            ),
        ),
        Some(_) => notes.left(
            Whom::Services,
            "the value of NATS_CLUSTER_ID is not in the manifest: the broker is NATS Streaming; add its id to spec.events, as in \
             streaming: {clusterId: ticketing}",
        ),
        None => notes.left(
            Whom::Services,
            "no NATS_CLUSTER_ID is set, so the broker is taken for JetStream; if it is NATS Streaming (its id may be in your code), \
             add its id to spec.events, as in streaming: {clusterId: ticketing}",
        ),
    }
    read.spec.insert("events".into(), events);
}

fn unknown_url(why: &str, notes: &mut Notes<'_>) -> Value {
    notes.left(
        Whom::Services,
        format!(
            "{why}: spec.events.nats.servers is set to the address in the course, nats://nats-srv:4222; correct \
             it"
        ),
    );
    json!({"servers": ["nats://nats-srv:4222"]})
}

fn is_id(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// The servers of a list of URLs, as the spec has them; none if one of them has a user, or anything else that the spec
/// refuses. `http://` meant the same to the Node.js client.
fn servers(text: &str) -> Option<Vec<String>> {
    let server = |text: &str| {
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("nats", text.trim()));
        let host = rest.trim_end_matches('/');
        let scheme = match scheme {
            "nats" | "http" => "nats",
            "tls" | "https" => "tls",
            _ => return None,
        };
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":.[]-".contains(&byte);
        let is_host = !host.is_empty() && host.len() <= 240 && host.bytes().all(is_allowed);
        is_host.then(|| format!("{scheme}://{host}"))
    };
    let servers: Option<Vec<_>> = text.split(',').map(server).collect();
    servers.filter(|servers| servers.len() <= 10)
}

fn rest(environment: Environment, notes: &mut Notes<'_>) {
    let is_of_node =
        |name: &str| OF_NODE.contains(&name) || name.starts_with("npm_") || name.starts_with("NPM_");
    for variable in environment.names_where(|_, _| true) {
        if variable == "PORT" {
            notes.dropped(Whom::Pods, "PORT: the port is spec.port");
        } else if variable == "LOG_LEVEL" {
            notes.changed(
                Whom::Pods,
                "LOG_LEVEL: the new pods log at the level info; for another, error, warn, debug or trace, write spec.podTemplate.extraEnv: \
                 [{name: LOG_LEVEL, value: debug}]",
            );
        } else if OF_BOTH.contains(&variable.as_str()) {
            notes.left(
                Whom::Pods,
                format!(
                    "variable {variable}: this service reads it too (docs/api.md), and does not have it now; if it is to, add it to \
                     spec.podTemplate.extraEnv, with a value that this service takes"
                ),
            );
        } else if variable.contains("EXPIRATION") || variable.contains("WINDOW_SECONDS") {
            notes.left(
                Whom::Pods,
                format!(
                    "variable {variable}: this service does not read it; if it is how long an order waits for its \
                     payment, write it in spec.expiration.windowSeconds, otherwise ignore it"
                ),
            );
        } else if is_of_node(&variable) {
            notes.dropped(Whom::Pods, format!("{variable}: only the Node.js service reads it"));
        } else {
            notes.left(
                Whom::Pods,
                format!(
                    "variable {variable}: the Node.js service may have read it, this one does not; if something \
                     else in the pods needs it, add it to spec.podTemplate.extraEnv, otherwise ignore it"
                ),
            );
        }
    }
    if !environment.whole_secrets.is_empty() {
        notes.left(
            Whom::You,
            format!(
                "all keys of the Secrets {} are variables, and these are not among the inputs: add them, as by kubectl get \
                 secret -o yaml (only their keys are read)",
                environment.whole_secrets.join(", ")
            ),
        );
    }
}

fn with_key(name: &str, key: &str, default: &str) -> Value {
    if key == default { json!({"name": name}) } else { json!({"name": name, "key": key}) }
}

/// A Secret for a value that was a literal, under a name that is free.
fn new_secret(
    name: &str,
    key: &str,
    value: String,
    variable: &str,
    read: &mut Connections,
    notes: &mut Notes<'_>,
) -> Value {
    let whose = if key == "JWT_KEY" { "; the auth service must go on signing with the same one" } else { "" };
    notes.changed(
        Whom::You,
        format!(
            "{variable} was a literal in the manifest: its value is in Secret {name:?} below; keep that out of your repository, \
             or give the Secret by other means and delete it there{whose}"
        ),
    );
    let from = format!("{variable} of {}", notes.object());
    read.secrets.push(NewSecret { name: name.into(), key: key.into(), value, from });
    with_key(name, key, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_names_a_database_or_does_not() {
        for (uri, names) in [
            ("mongodb://orders-mongo-srv:27017/orders", true),
            ("mongodb://orders-mongo-srv:27017", false),
            ("mongodb://orders-mongo-srv:27017/", false),
            ("mongodb://u:p%2F@h/?replicaSet=rs/0", false),
            ("mongodb+srv://u:p@h/o?retryWrites=true", true),
        ] {
            assert_eq!(names_database(uri), names, "{uri}");
        }
        for (uri, told) in [
            ("mongodb://u:a@b@m/o", Some("%40")),
            ("mongodb://", Some("names no host")),
            ("mongodb:///o", Some("names no host")),
            ("mongodb://u:p%40@a,b:1/o?x=@", None),
        ] {
            let why = odd_uri(uri);
            assert_eq!(why.is_some(), told.is_some(), "{uri}");
            assert!(why.unwrap_or_default().contains(told.unwrap_or_default()), "{uri}: {why:?}");
        }
    }

    #[test]
    fn servers_are_taken_as_the_node_client_took_them_unless_they_have_a_password() {
        let one = |text: &str| servers(text).map(|servers| servers.join(" "));
        assert_eq!(one("http://nats-srv:4222").as_deref(), Some("nats://nats-srv:4222"));
        assert_eq!(one("nats-srv:4222, https://b/").as_deref(), Some("nats://nats-srv:4222 tls://b"));
        for text in ["nats://u:p@h", "amqp://h", "", "nats://"] {
            assert_eq!(one(text), None, "{text}");
        }
    }
}
