//! A description of devices as vendors write it (CDI 1.1.0): JSON or YAML, and nothing in it that is not known.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// One file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) cdi_version: String,
    /// `vendor.com/class`.
    pub(super) kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    /// Made once for any of its devices.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// One device of a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    pub(super) container_edits: Edits,
}

/// What a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) net_devices: Vec<NetDevice>,
    pub(super) hooks: Vec<Hook>,
    pub(super) mounts: Vec<Mount>,
    pub(super) intel_rdt: Option<serde_json::Value>,
    #[serde(rename = "additionalGids")]
    pub(super) additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Node {
    /// Inside.
    pub(super) path: PathBuf,
    /// On the host, where it is another one.
    #[serde(default)]
    pub(super) host_path: Option<PathBuf>,
    /// `b`, `c`, `u` or `p`.
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) major: Option<u32>,
    #[serde(default)]
    pub(super) minor: Option<u32>,
    #[serde(default)]
    pub(super) file_mode: Option<u32>,
    /// A subset of `rwm`.
    #[serde(default)]
    pub(super) permissions: Option<String>,
    #[serde(default)]
    pub(super) uid: Option<u32>,
    #[serde(default)]
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NetDevice {
    pub(super) host_interface_name: String,
    #[serde(rename = "name")]
    _name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    /// Seconds.
    #[serde(default)]
    pub(super) timeout: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: PathBuf,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
}

impl Document {
    /// Reads a file's text; `yaml`, or else JSON.
    ///
    /// # Errors
    /// In words: what is not as the specification has it.
    pub(super) fn read(text: &str, yaml: bool) -> Result<Self, String> {
        let document: Self = if yaml {
            serde_saphyr::from_str(text).map_err(|error| error.to_string())?
        } else {
            serde_json::from_str(text).map_err(|error| error.to_string())?
        };
        // Later minor versions may add fields; those are told as unknown ones.
        let known = ["0.", "1."].iter().any(|major| document.cdi_version.starts_with(major));
        if !known {
            return Err(format!("cdiVersion {} is not known", document.cdi_version));
        }
        if document.kind.split_once('/').is_none_or(|(vendor, class)| !crate::request::is_kind(vendor, class))
        {
            return Err(format!("kind {} is not of the form vendor/class", document.kind));
        }
        Ok(document)
    }
}
