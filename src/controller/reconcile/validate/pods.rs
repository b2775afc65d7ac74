//! What the spec says of the pods: how many, how large, where they run.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Affinity, EnvVar, Toleration, TopologySpreadConstraint, Volume, VolumeMount},
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{
    containers::{self, ValidatedContainer},
    names, volumes,
};
use crate::crd::{
    CHECKSUM_ANNOTATION, DisruptionBudget, ExtraEnv, LocalSecret, OrdersServiceSpec, REFUSED_ANNOTATIONS,
    RESERVED_ENV, RESERVED_LABELS,
};

/// The number of pods if nothing sets another.
const DEFAULT_REPLICAS: i32 = 2;

/// The number of pods, and who decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// The spec: this many.
    Fixed(i32),
    /// Not set: two when the Deployment is created; after that, the number that an autoscaler has left is kept.
    Unset,
    /// A HorizontalPodAutoscaler.
    Autoscaled {
        /// The fewest.
        min: i32,
        /// The most.
        max: i32,
        /// CPU use to aim at, in percent of the request.
        cpu_percent: i32,
    },
}

impl Replicas {
    /// How many there are at the start.
    pub fn initial(self) -> i32 {
        match self {
            Self::Fixed(number) => number,
            Self::Unset => DEFAULT_REPLICAS,
            Self::Autoscaled { min, .. } => min,
        }
    }
}

/// What the pods get, and where they run.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedPods {
    /// What a pod asks of its node, in canonical form.
    pub requests: BTreeMap<String, Quantity>,
    /// The most that it may take, in canonical form.
    pub limits: BTreeMap<String, Quantity>,
    /// Further labels.
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that they tolerate.
    pub tolerations: Vec<Toleration>,
    /// What they should be near to.
    pub affinity: Option<Affinity>,
    /// How they are spread; empty for the default.
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of their PriorityClass.
    pub priority_class_name: Option<String>,
    /// Name of the user's own ServiceAccount; none for the operator's.
    pub service_account_name: Option<String>,
    /// Further environment variables.
    pub extra_env: Vec<EnvVar>,
    /// Whether the cluster assigns their user.
    pub user_from_cluster: bool,
    /// Further volumes.
    pub volumes: Vec<Volume>,
    /// Further volumes of the API's container.
    pub volume_mounts: Vec<VolumeMount>,
    /// Containers that run before the API, or beside it.
    pub init_containers: Vec<ValidatedContainer>,
}

pub(super) fn replicas(spec: &OrdersServiceSpec, invalid: &mut impl FnMut(String)) -> Replicas {
    let Some(auto) = &spec.autoscaling else {
        if let Some(number) = spec.replicas.filter(|number| !(0..=1000).contains(number)) {
            invalid(format!("spec.replicas is {number}: write a number from 0 to 1000"));
        }
        return spec.replicas.map_or(Replicas::Unset, Replicas::Fixed);
    };
    if spec.replicas.is_some() {
        invalid("spec.replicas and spec.autoscaling cannot be set together: remove spec.replicas".into());
    }
    let (min, max, cpu_percent) =
        (auto.min_replicas, auto.max_replicas, auto.target_cpu_utilization_percentage);
    for (field, value) in
        [("minReplicas", min), ("maxReplicas", max), ("targetCPUUtilizationPercentage", cpu_percent)]
    {
        if !(1..=1000).contains(&value) {
            invalid(format!("spec.autoscaling.{field} is {value}: write a number from 1 to 1000"));
        }
    }
    if min > max {
        invalid(format!(
            "spec.autoscaling.minReplicas is {min}, above maxReplicas, which is {max}: lower one or raise the other"
        ));
    }
    // If only a limit is set, it is the request too.
    if ![&spec.resources.requests, &spec.resources.limits].iter().any(|amounts| amounts.contains_key("cpu")) {
        invalid("spec.autoscaling measures CPU in percent of what the pods request: set spec.resources.requests.cpu".into());
    }
    Replicas::Autoscaled { min, max, cpu_percent }
}

/// The budget: what the spec says, else one pod where there is more than one.
pub(super) fn max_unavailable(
    spec: &OrdersServiceSpec,
    replicas: Replicas,
    invalid: &mut impl FnMut(String),
) -> Option<IntOrString> {
    let DisruptionBudget { max_unavailable } = match &spec.pod_disruption_budget {
        Some(budget) => budget.clone(),
        None if replicas.initial() > 1 => DisruptionBudget::default(),
        None => return None,
    };
    let works = match &max_unavailable {
        IntOrString::Int(number) => (0..=1000).contains(number),
        IntOrString::String(text) => text
            .strip_suffix('%')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u8>().ok())
            .is_some_and(|percent| percent <= 100),
    };
    if !works {
        invalid(format!(
            "spec.podDisruptionBudget.maxUnavailable is {}: write a number from 0 to 1000, or percent such as \"25%\"",
            match &max_unavailable {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(text) => format!("{text:?}"),
            }
        ));
    }
    Some(max_unavailable)
}

pub(super) fn validate(
    spec: &OrdersServiceSpec,
    user_from_cluster: bool,
    invalid: &mut impl FnMut(String),
) -> ValidatedPods {
    let template = spec.pod_template.clone().unwrap_or_default();
    for key in template.labels.keys().filter(|key| RESERVED_LABELS.contains(&key.as_str())) {
        invalid(format!(
            "spec.podTemplate.labels has {key:?}, which the operator sets itself: remove or rename it"
        ));
    }
    let ingress = spec.ingress.iter().flat_map(|ingress| ingress.annotations.keys());
    let maps = [
        ("spec.podTemplate.labels", &template.labels),
        ("spec.podTemplate.annotations", &template.annotations),
    ];
    let of_pods = maps.iter().flat_map(|(field, map)| map.keys().map(move |key| (*field, key)));
    let all = of_pods.chain(ingress.map(|key| ("spec.ingress.annotations", key)));
    for (field, key) in all.filter(|(_, key)| !names::is_qualified(key)) {
        invalid(format!(
            "{field} has {key:?}, which cannot be a key there: write letters, digits, -, _ and ., up to 63, after the name of a \
             domain and one slash, or alone, such as example.com/team"
        ));
    }
    if template.annotations.contains_key(CHECKSUM_ANNOTATION) {
        invalid(format!(
            "spec.podTemplate.annotations has {CHECKSUM_ANNOTATION:?}, which the operator sets itself: remove it"
        ));
    }
    let mut secrets = BTreeSet::new();
    for LocalSecret { name } in &spec.image_pull_secrets {
        if !secrets.insert(name) {
            invalid(format!("spec.imagePullSecrets has {name:?} twice: remove one"));
        }
    }
    let is_refused = |key: &&String| REFUSED_ANNOTATIONS.iter().any(|refused| key.starts_with(refused));
    for key in template.annotations.keys().filter(is_refused) {
        invalid(format!(
            "spec.podTemplate.annotations has {key:?}, which changes what containers may do, or adds others: remove it"
        ));
    }
    let mut constraints = BTreeSet::new();
    for constraint in &template.topology_spread_constraints {
        if !constraints.insert((&constraint.topology_key, &constraint.when_unsatisfiable)) {
            invalid(format!(
                "spec.podTemplate.topologySpreadConstraints has topologyKey {:?} with whenUnsatisfiable {:?} twice: remove one",
                constraint.topology_key, constraint.when_unsatisfiable
            ));
        }
    }
    let resources = containers::canonical("spec.resources", &spec.resources, invalid);
    ValidatedPods {
        user_from_cluster: template.user_from_cluster.unwrap_or(user_from_cluster),
        volumes: volumes::volumes(&template, invalid),
        volume_mounts: volumes::mounts_of_api(&template, invalid),
        init_containers: containers::init_containers(&template, invalid),
        requests: resources.requests,
        limits: resources.limits,
        labels: template.labels,
        annotations: template.annotations,
        node_selector: template.node_selector,
        tolerations: template.tolerations,
        affinity: template.affinity,
        topology_spread_constraints: template.topology_spread_constraints,
        priority_class_name: template.priority_class_name,
        service_account_name: template.service_account_name,
        extra_env: environment_of_api(template.extra_env, invalid),
    }
}

fn environment_of_api(variables: Vec<ExtraEnv>, invalid: &mut impl FnMut(String)) -> Vec<EnvVar> {
    for variable in &variables {
        let name = variable.name.as_str();
        if RESERVED_ENV.contains(&name) {
            invalid(format!(
                "spec.podTemplate.extraEnv has {name:?}, which the operator sets itself from other fields: remove it"
            ));
        }
    }
    containers::environment("spec.podTemplate.extraEnv", variables, invalid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::{
        fixture::service,
        reconcile::{dereference::Dereferenced, validate::validate},
    };

    fn problems(patch: serde_json::Value) -> String {
        let found = validate(&service(patch), &Dereferenced::default(), Some("image:1")).unwrap_err();
        found.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("\n")
    }

    fn valid(
        patch: serde_json::Value,
    ) -> crate::controller::reconcile::validate::validated::ValidatedOrdersService {
        validate(&service(patch), &Dereferenced::default(), Some("image:1")).unwrap()
    }

    #[test]
    fn what_admission_refuses_is_refused_again() {
        for (patch, expected) in [
            (json!({"replicas": 3, "autoscaling": {"maxReplicas": 3}}), "cannot be set together"),
            (json!({"autoscaling": {"minReplicas": 4, "maxReplicas": 3}}), "above maxReplicas, which is 3"),
            (json!({"autoscaling": {"maxReplicas": 1001}}), "maxReplicas is 1001"),
            (
                json!({"autoscaling": {"maxReplicas": 3}, "resources": {"requests": {"cpu": null}}}),
                "set spec.resources.requests.cpu",
            ),
            (json!({"podDisruptionBudget": {"maxUnavailable": "1"}}), "maxUnavailable is \"1\""),
            (json!({"podDisruptionBudget": {"maxUnavailable": "101%"}}), "percent such as \"25%\""),
            (json!({"podDisruptionBudget": {"maxUnavailable": -1}}), "maxUnavailable is -1"),
            (json!({"expiration": {"maxPerSecond": 0}}), "maxPerSecond is 0"),
            (json!({"resources": {"requests": {"memory": "1Gi"}}}), "above its limit of 128Mi: raise"),
            (json!({"resources": {"limits": {"cpu": "lots"}}}), "limits.cpu is \"lots\""),
            (json!({"podTemplate": {"labels": {"app.kubernetes.io/name": "x"}}}), "which the operator sets"),
            (json!({"podTemplate": {"annotations": {CHECKSUM_ANNOTATION: "x"}}}), "which the operator sets"),
            (json!({"podTemplate": {"extraEnv": [{"name": "PORT"}]}}), "\"PORT\", which the operator sets"),
            (json!({"podTemplate": {"extraEnv": [{"name": "A"}, {"name": "A"}]}}), "\"A\" twice"),
            (
                json!({"imagePullSecrets": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}),
                "imagePullSecrets has \"a\" twice",
            ),
            (
                json!({"podTemplate": {"extraEnv": [{"name": "A", "value": "", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}}),
                "with value and valueFrom",
            ),
            (
                json!({"podTemplate": {"topologySpreadConstraints": [
                    {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1},
                    {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 2},
                ]}}),
                "\"DoNotSchedule\" twice",
            ),
        ] {
            let said = problems(patch.clone());
            assert!(said.contains(expected), "{patch}: {said}");
        }
    }

    #[test]
    fn there_is_a_budget_where_there_is_more_than_one_pod_or_where_it_is_asked_for() {
        for (patch, expected) in [
            (json!({}), Some(IntOrString::Int(1))),
            (json!({"replicas": 1}), None),
            (json!({"replicas": 0}), None),
            (json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 9}}), None),
            (json!({"autoscaling": {"maxReplicas": 9}}), Some(IntOrString::Int(1))),
            (
                json!({"replicas": 1, "podDisruptionBudget": {"maxUnavailable": "25%"}}),
                Some(IntOrString::String("25%".into())),
            ),
        ] {
            assert_eq!(valid(patch.clone()).max_unavailable, expected, "{patch}");
        }
    }

    #[test]
    fn amounts_are_canonical() {
        let pods =
            valid(json!({"resources": {"requests": {"cpu": 1, "memory": "1024Mi"}, "limits": {"memory": "2048Mi"}}}))
                .pods;
        assert_eq!((pods.requests["cpu"].0.as_str(), pods.requests["memory"].0.as_str()), ("1", "1Gi"));
        assert_eq!(pods.limits["memory"].0, "2Gi");
    }
}
