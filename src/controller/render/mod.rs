//! `render`: what the controller would apply, without a cluster.
//!
//! It runs the pure steps of a reconcile, validate and build, on YAML from files, so that a change can be reviewed before
//! it is made. What only a cluster knows is left out: the owner reference, and the checksum of the Secrets. Of several
//! resources that claim the same route, all are reported.
//!
//! ```text
//! args       the command line
//! files      reading the inputs
//! yaml       the objects of a text, and why it has none
//! conflicts  routes that several of the inputs claim
//! explain    which rule a request takes
//! in_cluster the same, of what is rendered in a cluster
//! alone      what is wrong with one OrdersService by itself
//! drawing    all hosts and their rules
//! error      why nothing was rendered
//! ```

mod alone;
mod args;
mod conflicts;
mod drawing;
mod error;
mod explain;
mod files;
mod in_cluster;
mod yaml;

pub use alone::{problems, refused};
pub use args::{DrawingFormat, RenderArgs};
pub use error::RenderError;
pub use in_cluster::{ClusterObjects, ClusterRoutes, Explained, MissingRoute, Taker};

use self::{
    conflicts::AllClaims,
    files::{InFile, ServiceInFile, mistaken, parse_http_route, parse_ingress, parse_service, read},
};
use crate::{
    controller::{
        children::kind::Child,
        claims::hosts_file::{HostsFile, is_namespace},
        reconcile::build::{build, prepared::PreparedVisitor},
    },
    routing::{ClaimIndex, RequestTarget},
};

/// What was rendered.
#[derive(Debug)]
pub struct Rendered {
    /// The children as YAML documents, or what was to be explained.
    pub text: String,
    /// What is probably unintended in the resources, each with its file.
    pub warnings: Vec<String>,
}

/// The children of every OrdersService in the inputs as YAML documents, by namespace and name.
///
/// # Errors
/// Every problem of every resource, each with its file, resource and field; then nothing is rendered. What is only drawn may
/// have conflicts, which are drawn too.
pub fn render(args: &RenderArgs) -> Result<Rendered, RenderError> {
    let request = args.explain.as_ref().and_then(Option::as_deref).map(RequestTarget::parse).transpose()?;
    if request.is_some() && args.format != DrawingFormat::Text {
        return Err(RenderError::FormatOfRequest);
    }
    let is_drawn = args.explain.is_some() && request.is_none();
    if !is_namespace(&args.namespace) {
        return Err(RenderError::Namespace(args.namespace.clone()));
    }
    let hosts = args.hosts_file.as_deref().map(HostsFile::read).transpose()?;
    let mut problems = Vec::new();
    let mut services = Vec::new();
    let mut others = Vec::new();
    let mut searched = Vec::new();
    for input in &args.inputs {
        let files = read(input)?;
        let mut are_empty = true;
        for (file, text) in &files {
            let objects = match yaml::objects(text) {
                Ok(objects) => objects,
                Err(why) => {
                    problems.push(format!("{file}: {why}"));
                    continue;
                }
            };
            for object in objects.into_iter().filter(|object| !object.value.is_null()) {
                are_empty = false;
                match object.value["kind"].as_str() {
                    Some("OrdersService") => {
                        services.extend(parse_service(InFile { file, text }, object, args, &mut problems))
                    }
                    Some("Ingress") => others.extend(parse_ingress(file, object.value, args)),
                    Some("HTTPRoute") => others.extend(parse_http_route(file, object.value, args)),
                    _ => problems.extend(mistaken(&object.value).map(|what| format!("{file}: {what}"))),
                }
            }
        }
        searched.push(match files.len() {
            0 => format!("{}, which has no files that end with .yaml or .yml", input.display()),
            _ if are_empty => format!("{}, which is empty", input.display()),
            _ => input.display().to_string(),
        });
    }
    services.sort_by(|left, right| left.key().cmp(&right.key()));
    for pair in services.windows(2) {
        let [first, second] = pair else { continue };
        if first.key() == second.key() {
            let (namespace, name) = second.key();
            let what = format!("OrdersService {name:?} in namespace {namespace:?}");
            problems.push(format!("{}: {what}: is in {} already", second.file, first.file));
        }
    }
    let mut index = ClaimIndex::new(args.host_policy.into());
    if let Some(hosts) = &hosts {
        index.set_allowed(hosts.allowed().clone());
    }
    let claims = AllClaims::of(&services, &others, index);
    if !is_drawn {
        problems.extend(conflicts::problems(&services, &claims));
    }
    if !problems.is_empty() {
        return Err(RenderError::Invalid(problems));
    }
    if services.is_empty() {
        return Err(RenderError::Nothing(searched.join("; ")));
    }
    let of_all: Vec<_> = services.iter().map(|found| found.service.clone()).collect();
    let warnings =
        services.iter().flat_map(|found| found.warnings(claims.of_service(found), &of_all)).collect();
    if let Some(request) = request {
        return Ok(Rendered { text: explain::explain(&services, &others, &claims, &request)?, warnings });
    }
    if is_drawn {
        return Ok(Rendered { text: drawing::draw(&services, &others, &claims, args.format)?, warnings });
    }
    let mut documents = Documents::default();
    for ServiceInFile { valid, .. } in &services {
        build(valid).visit(&mut documents);
    }
    let text = documents.0.into_iter().collect::<Result<Vec<_>, _>>()?.join("---\n");
    Ok(Rendered { text, warnings })
}

/// The children as YAML documents.
#[derive(Default)]
struct Documents(Vec<Result<String, serde_saphyr::ser::Error>>);

impl<'a> PreparedVisitor<'a> for Documents {
    fn visit<K: Child>(&mut self, children: &'a [K]) {
        self.0.extend(children.iter().map(serde_saphyr::to_string));
    }
}
