//! The API and the database alone, measured in turns, so that drift of the machine affects both.

use std::{env, fs, path::Path, process, time::Duration};

use mongodb::bson::oid::ObjectId;

use crate::{
    Load, Result,
    database::{BUYER, Db, DirectClient, Join, Kind, ORDERS_PER_USER, Statement, Tickets, id, user},
    http::{Connection, Source},
    measure::{Processes, Sample, closed_loop, memory_of},
    process::{Serve, cookie},
    report::{Line, Report},
};

/// Free tickets per second of reserving. If a server is faster, its turn ends early.
const TICKETS_PER_SECOND: u64 = 4000;

/// The length of each turn of the warm-up.
const WARM_UP: Duration = Duration::from_secs(1);

/// A kind of request to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    One,
    List,
    Create,
    Anonymous,
}

impl Route {
    pub const ALL: [Self; 4] = [Self::One, Self::List, Self::Create, Self::Anonymous];

    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "GET one",
            Self::List => "GET list",
            Self::Create => "POST",
            Self::Anonymous => "401",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::One | Self::List => 200,
            Self::Create => 201,
            Self::Anonymous => 401,
        }
    }

    /// The statements that the API sends to the database for it.
    const fn statement(self) -> Option<Statement> {
        match self {
            Self::One => Some(Statement::One(Join::FindOne)),
            Self::List => Some(Statement::List(Join::LookupOneBatch, ORDERS_PER_USER)),
            Self::Create => Some(Statement::Reserve),
            Self::Anonymous => None,
        }
    }
}

/// Measures every route with every number of stored orders.
pub async fn run(db: &Db, load: &Load) -> Result<()> {
    let mut report = Report::new(load)?;
    for &stored in &load.orders {
        let bench = Bench::prepare(db, load, stored).await?;
        let mut samples: Vec<_> =
            Route::ALL.into_iter().map(|route| (route, Vec::new(), Vec::new())).collect();
        // The first round is a warm-up.
        for round in 0..=load.rounds {
            for (route, api, ceiling) in &mut samples {
                let say = |side: &str, sample: Sample, into: &mut Vec<Sample>| {
                    let turn = if round == 0 {
                        "warm-up".into()
                    } else {
                        format!("round {round} of {}", load.rounds)
                    };
                    let name = route.name();
                    eprintln!("bench: {stored} orders, {turn}, {name:8} {side:7} {:7.0}/s", sample.rate);
                    if round > 0 {
                        into.push(sample);
                    }
                };
                let length = if round == 0 { WARM_UP } else { load.length() };
                say("API", bench.api(*route, length).await?, api);
                if let Some(statement) = route.statement() {
                    say("ceiling", bench.ceiling(statement, length).await?, ceiling);
                }
            }
        }
        let lines =
            samples.iter().map(|(route, api, ceiling)| Line::new(route.name(), api, ceiling)).collect();
        report.add(stored, lines, memory_of(bench.serve.pid()));
    }
    report.finish()
}

/// The API, and a database with a number of stored orders.
struct Bench<'a> {
    db: &'a Db,
    load: &'a Load,
    serve: Serve,
    processes: Processes,
    numbers: u64,
}

impl<'a> Bench<'a> {
    async fn prepare(db: &'a Db, load: &'a Load, stored: u64) -> Result<Self> {
        db.drop().await?;
        // First, since it creates the indexes.
        let serve = Serve::start().await?;
        // A user who lists needs some orders.
        let numbers = stored.next_multiple_of(ORDERS_PER_USER).max(ORDERS_PER_USER);
        eprintln!("bench: storing {numbers} orders, and free tickets");
        db.store_orders(0..numbers, ORDERS_PER_USER).await?;
        db.store_tickets(Kind::Free, 0..2 * load.seconds * TICKETS_PER_SECOND).await?;
        let mut processes = vec![("API", serve.pid()), ("generator", process::id())];
        processes.extend(database_processes());
        Ok(Self { db, load, serve, processes: Processes(processes), numbers })
    }

    /// The half of the free tickets that is for the API (0) or for the database alone (1).
    fn tickets(&self, half: u64) -> Tickets {
        let tickets = self.load.seconds * TICKETS_PER_SECOND;
        Tickets::new(half * tickets..(half + 1) * tickets)
    }

    async fn api(&self, route: Route, length: Duration) -> Result<Sample> {
        let tickets = self.tickets(0);
        let mut connections = Vec::new();
        for number in 0..self.load.connections {
            let source = self.source(route, number, &tickets)?;
            connections.push(Connection::open(self.serve.address, route.status(), source).await?);
        }
        let sample = closed_loop(connections, length, &self.processes).await?;
        self.serve.truncate_log()?;
        self.reset(route.statement()).await?;
        Ok(sample)
    }

    async fn ceiling(&self, statement: Statement, length: Duration) -> Result<Sample> {
        let tickets = self.tickets(1);
        let client = || DirectClient {
            db: self.db.clone(),
            statement,
            numbers: 0..self.numbers,
            tickets: tickets.clone(),
        };
        let clients = (0..self.load.connections).map(|_| client()).collect();
        let sample = closed_loop(clients, length, &self.processes).await?;
        self.reset(Some(statement)).await?;
        Ok(sample)
    }

    /// Deletes the reservations, so that every turn begins with the same orders.
    async fn reset(&self, statement: Option<Statement>) -> Result<()> {
        if statement == Some(Statement::Reserve) { self.db.delete_reservations().await } else { Ok(()) }
    }

    /// The requests of connection `number`, all by one user and for that user's orders.
    fn source(&self, route: Route, number: u64, tickets: &Tickets) -> Result<Source> {
        let first = number * ORDERS_PER_USER % self.numbers;
        let head = |method: &str, path: &str, user: &str| {
            Ok::<_, crate::Error>(format!(
                "{method} {path} HTTP/1.1\r\nhost: bench\r\ncookie: {}\r\n",
                cookie(user)
            ))
        };
        Ok(match route {
            Route::One => {
                let user = user(first, ORDERS_PER_USER);
                let request = |order| head("GET", &format!("/api/orders/{}", id(Kind::Order, order)), &user);
                repeat((first..first + ORDERS_PER_USER).map(request).collect::<Result<_>>()?)
            }
            Route::List => repeat(vec![head("GET", "/api/orders", &user(first, ORDERS_PER_USER))?]),
            Route::Anonymous => repeat(vec!["GET /api/orders HTTP/1.1\r\nhost: bench\r\n".into()]),
            Route::Create => reservations(tickets),
        })
    }
}

/// Reservations of free tickets by one user.
pub fn reservations(tickets: &Tickets) -> Source {
    let tickets = tickets.clone();
    reserve(BUYER, move || tickets.next())
}

/// Reserves the same ticket again and again.
pub fn reservations_of(user: &str, ticket: ObjectId) -> Source {
    reserve(user, move || Some(ticket))
}

fn reserve(user: &str, mut ticket: impl FnMut() -> Option<ObjectId> + Send + 'static) -> Source {
    let head = format!("POST /api/orders HTTP/1.1\r\nhost: bench\r\ncookie: {}\r\n", cookie(user));
    Box::new(move |request| {
        let Some(ticket) = ticket() else { return false };
        let body = format!("{{\"ticketId\":\"{ticket}\"}}");
        request.extend_from_slice(head.as_bytes());
        let length = body.len();
        let rest = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
        request.extend_from_slice(rest.as_bytes());
        true
    })
}

/// Requests without a body, in an endless loop.
fn repeat(heads: Vec<String>) -> Source {
    let mut next = 0;
    Box::new(move |request| {
        request.extend_from_slice(heads[next % heads.len()].as_bytes());
        request.extend_from_slice(b"\r\n");
        next += 1;
        true
    })
}

/// The processes of the test bed's database; none for another database, whose CPU cannot be measured from here.
pub fn database_processes() -> Vec<(&'static str, u32)> {
    let Some(bed) = env::var_os("BED_STATE") else { return Vec::new() };
    let pid = |name| {
        let file = Path::new(&bed).join("mongo").join(format!("{name}.pid"));
        let text = fs::read_to_string(file).ok()?;
        Some((name, text.split_whitespace().next()?.parse().ok()?))
    };
    ["ferretdb", "postgres"].into_iter().filter_map(pid).collect()
}
