//! Which pods have the current template of a Deployment.
//!
//! Pods of one template have the same label, a hash that is also the end of the name of their ReplicaSet. Which ReplicaSet
//! is the current one, the Deployment controller says in the message of the condition `Progressing`; to read the
//! ReplicaSets themselves takes a right, and a request, that nothing else needs.

/// The label of pods with the hash of their template.
pub const HASH_LABEL: &str = "pod-template-hash";

/// The hash in the name of the ReplicaSet that the Deployment of this name speaks of, such as `ReplicaSet "orders-6d4cf56db6"
/// is progressing.`; none if it speaks of none, as one that is paused.
pub fn template_hash(deployment: &str, message: &str) -> Option<String> {
    let name = message.split('"').nth(1)?;
    let hash = name.strip_prefix(deployment)?.strip_prefix('-')?;
    let is_hash = !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_hash.then(|| hash.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_read_from_each_message_that_names_the_current_replica_set() {
        for message in [
            "Created new replica set \"my-orders-6d4cf56db6\"",
            "Found new replica set \"my-orders-6d4cf56db6\"",
            "ReplicaSet \"my-orders-6d4cf56db6\" is progressing.",
            "ReplicaSet \"my-orders-6d4cf56db6\" has timed out progressing.",
            "ReplicaSet \"my-orders-6d4cf56db6\" has successfully progressed.",
            "Failed to create new replica set \"my-orders-6d4cf56db6\": exceeded quota",
        ] {
            assert_eq!(template_hash("my-orders", message).as_deref(), Some("6d4cf56db6"), "{message}");
        }
        for message in [
            "",
            "Deployment is paused",
            "ReplicaSet \"other-6d4cf56db6\"",
            "ReplicaSet \"my-orders-\"",
            "ReplicaSet \"my-orders-a,b\"",
        ] {
            assert_eq!(template_hash("my-orders", message), None, "{message}");
        }
    }
}
