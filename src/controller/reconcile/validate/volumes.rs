//! The volumes that the spec adds to the pods, and where containers have them, as the Pod API has them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIProjection, DownwardAPIVolumeFile,
    EmptyDirVolumeSource, KeyToPath, ObjectFieldSelector, ProjectedVolumeSource, SecretProjection,
    SecretVolumeSource, Volume, VolumeMount, VolumeProjection,
};

use super::quantity::Amount;
use crate::crd::{
    CERTIFICATES_VOLUME, EmptyDir, FileOfKey, Medium, Mount, NamedFiles, OWN_FOLDER, PodTemplate, PodVolume,
    Source,
};

const VOLUMES: &str = "spec.podTemplate.volumes";

/// The volumes.
pub(super) fn volumes(template: &PodTemplate, invalid: &mut impl FnMut(String)) -> Vec<Volume> {
    unique(VOLUMES, template.volumes.iter().map(|volume| &volume.name), invalid);
    template.volumes.iter().map(|each| volume(each, invalid)).collect()
}

/// The mounts of the API's container.
pub(super) fn mounts_of_api(template: &PodTemplate, invalid: &mut impl FnMut(String)) -> Vec<VolumeMount> {
    let path = "spec.podTemplate.extraVolumeMounts";
    for mount in template.extra_volume_mounts.iter().filter(|mount| touches_own(&mount.mount_path)) {
        invalid(format!("{path} has {:?}, and {OWN_FOLDER} is the operator's own folder", mount.mount_path));
    }
    mounts(path, &template.extra_volume_mounts, template, invalid)
}

/// Whether something mounted there would be in the operator's own folder, or around it.
fn touches_own(path: &str) -> bool {
    let is_in = |path: &str, folder: &str| {
        path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    };
    is_in(path, OWN_FOLDER) || is_in(OWN_FOLDER, path)
}

/// Tells of names that come twice.
pub(super) fn unique<'a>(
    path: &str,
    names: impl Iterator<Item = &'a String>,
    invalid: &mut impl FnMut(String),
) {
    let mut seen = BTreeSet::new();
    for name in names.filter(|name| !seen.insert(*name)) {
        invalid(format!("{path} has {name:?} twice: rename one"));
    }
}

fn volume(volume: &PodVolume, invalid: &mut impl FnMut(String)) -> Volume {
    let PodVolume { name, empty_dir, config_map, secret, projected } = volume;
    if name == CERTIFICATES_VOLUME {
        invalid(format!("{VOLUMES} has {name:?}, which is the operator's own: use another name"));
    }
    let kinds = [empty_dir.is_some(), config_map.is_some(), secret.is_some(), projected.is_some()];
    if kinds.iter().filter(|is_there| **is_there).count() != 1 {
        invalid(format!(
            "{VOLUMES}: {name:?} must be exactly one of emptyDir, configMap, secret and projected; other kinds, such as hostPath and csi, are not allowed"
        ));
    }
    let mut files = |items: &[FileOfKey]| file_items(items, name, invalid);
    let config_map = config_map.as_ref().map(|found| ConfigMapVolumeSource {
        name: found.name.clone(),
        items: files(&found.items),
        optional: set(found.optional),
        default_mode: None,
    });
    let secret = secret.as_ref().map(|found| SecretVolumeSource {
        secret_name: Some(found.secret_name.clone()),
        items: files(&found.items),
        optional: set(found.optional),
        default_mode: None,
    });
    let projected = projected.as_ref().map(|found| ProjectedVolumeSource {
        sources: Some(found.sources.iter().map(|each| source(each, name, invalid)).collect()),
        default_mode: None,
    });
    Volume {
        name: name.clone(),
        empty_dir: empty_dir.as_ref().map(|found| folder(found, name, invalid)),
        config_map,
        secret,
        projected,
        ..Volume::default()
    }
}

fn folder(folder: &EmptyDir, volume: &str, invalid: &mut impl FnMut(String)) -> EmptyDirVolumeSource {
    let limit = Amount::parse(&folder.size_limit).filter(|limit| limit.nanos() > 0);
    if limit.is_none() {
        // 0 would mean no limit.
        invalid(format!(
            "{VOLUMES}: the emptyDir.sizeLimit of {volume:?} is {:?}: write an amount such as 64Mi, more than 0",
            folder.size_limit.0
        ));
    }
    EmptyDirVolumeSource {
        medium: folder.medium.map(|Medium::Memory| "Memory".into()),
        size_limit: limit.map(|limit| limit.canonical()),
    }
}

fn source(source: &Source, volume: &str, invalid: &mut impl FnMut(String)) -> VolumeProjection {
    let Source { config_map, secret, downward_api } = source;
    let kinds = [config_map.is_some(), secret.is_some(), downward_api.is_some()];
    if kinds.iter().filter(|is_there| **is_there).count() != 1 {
        invalid(format!(
            "{VOLUMES}: each source of {volume:?} must be exactly one of configMap, secret and downwardAPI; serviceAccountToken is not allowed, since the pods have no token"
        ));
    }
    let mut projection = |found: &NamedFiles| {
        (found.name.clone(), file_items(&found.items, volume, invalid), set(found.optional))
    };
    let config_map = config_map.as_ref().map(|found| {
        let (name, items, optional) = projection(found);
        ConfigMapProjection { name, items, optional }
    });
    let secret = secret.as_ref().map(|found| {
        let (name, items, optional) = projection(found);
        SecretProjection { name, items, optional }
    });
    let downward_api = downward_api.as_ref().map(|found| {
        let items = found.items.iter().map(|item| {
            within_volume(VOLUMES, &item.path, volume, invalid);
            let field_ref =
                ObjectFieldSelector { field_path: item.field_ref.field_path.clone(), api_version: None };
            DownwardAPIVolumeFile {
                path: item.path.clone(),
                field_ref: Some(field_ref),
                ..DownwardAPIVolumeFile::default()
            }
        });
        DownwardAPIProjection { items: Some(items.collect()) }
    });
    VolumeProjection { config_map, secret, downward_api, ..VolumeProjection::default() }
}

fn file_items(items: &[FileOfKey], volume: &str, invalid: &mut impl FnMut(String)) -> Option<Vec<KeyToPath>> {
    let items: Vec<_> = items
        .iter()
        .map(|item| {
            within_volume(VOLUMES, &item.path, volume, invalid);
            KeyToPath { key: item.key.clone(), path: item.path.clone(), mode: None }
        })
        .collect();
    Some(items).filter(|items| !items.is_empty())
}

/// The mounts of one container; `path` is the field that they are in.
pub(super) fn mounts(
    path: &str,
    mounts: &[Mount],
    template: &PodTemplate,
    invalid: &mut impl FnMut(String),
) -> Vec<VolumeMount> {
    unique(path, mounts.iter().map(|mount| &mount.mount_path), invalid);
    mounts
        .iter()
        .map(|mount| {
            let Mount { name, mount_path, sub_path, read_only } = mount;
            if !template.volumes.iter().any(|volume| volume.name == *name) {
                invalid(format!("{path} names the volume {name:?}, which is not in {VOLUMES}: add it there"));
            }
            if !is_canonical(mount_path) {
                invalid(format!(
                    "{path} has mountPath {mount_path:?}: it must be absolute, such as /var/cache, and have no :, no . or .. between slashes, and no slash at its end"
                ));
            }
            if let Some(sub_path) = sub_path.as_ref().filter(|sub_path| !is_within(sub_path)) {
                outside(path, sub_path, name, invalid);
            }
            VolumeMount {
                name: name.clone(),
                mount_path: mount_path.clone(),
                sub_path: sub_path.clone(),
                read_only: set(*read_only),
                ..VolumeMount::default()
            }
        })
        .collect()
}

/// The API server drops what is false by default.
fn set(value: bool) -> Option<bool> {
    value.then_some(true)
}

/// Whether there is no other way to write this absolute path, so that two that differ are two places.
fn is_canonical(path: &str) -> bool {
    let is_name = |part: &str| !["", ".", ".."].contains(&part) && !part.contains(':');
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_name))
}

fn is_within(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != "..")
}

/// The path of a file that the kubelet makes, whose own names there begin with two dots.
fn within_volume(field: &str, path: &str, volume: &str, invalid: &mut impl FnMut(String)) {
    if !is_within(path) || path.starts_with("..") {
        outside(field, path, volume, invalid);
    }
}

fn outside(field: &str, path: &str, volume: &str, invalid: &mut impl FnMut(String)) {
    invalid(format!(
        "{field}: the path {path:?} within the volume {volume:?} must begin neither with / nor with .., and have no .."
    ));
}
