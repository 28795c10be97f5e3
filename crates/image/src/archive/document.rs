//! `manifest.json` of Docker's archives.

use serde::{Deserialize, Serialize};

/// One image of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    /// The path of its configuration.
    pub(crate) config: String,
    /// Its names, as Docker shows them.
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    /// The paths of its layers, lowest first.
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}
