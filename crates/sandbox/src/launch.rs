//! What the engine hands to a supervisor: one document, written into a memfd before the supervisor starts.
//!
//! Everything here is decided: the supervisor performs it and decides nothing about images, names or
//! networks. What only exists after the network was made (descriptors, the network's undo list) follows in
//! a [`Go`] message over the launch socket, so that the supervisor prepares cgroups meanwhile.

use std::path::PathBuf;
use std::time::Duration;

use cata_guest::order::Order;
use cata_runtime::plan::Plan;
use cata_spec::ContainerId;
use serde::{Deserialize, Serialize};

use crate::journal::{Entry, Story};

/// Everything a supervisor needs for the whole life of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// Whose supervisor this is.
    pub id: ContainerId,
    /// Which hull the container's process lives in.
    pub isolation: Isolation,
    /// What the runtime does to make the process. Read again from the memfd at each restart. Its cgroup is
    /// made by the supervisor while the engine makes the network.
    pub plan: Plan,
    /// Live state: `<state>/<id>/`, exists, empty, on tmpfs. Holds `socket`, `status.json`, `lock`.
    pub state_dir: PathBuf,
    /// `<root>/containers/<id>/`: holds `log/` and receives `exit.json`.
    pub container_dir: PathBuf,
    /// The machine, for [`Isolation::Vm`]: then `plan` is the guest's but for its cgroup, which is the host's.
    #[serde(default)]
    pub vm: Option<Order>,
    /// Where output goes besides attached clients.
    pub log: LogPlan,
    /// Whether standard input is open, and whether the first client to leave closes it.
    pub stdin: StdinPlan,
    /// What happens when the process ends by itself.
    pub restart: RestartPolicy,
    /// The probe, if the image or the user asked for one.
    pub health: Option<HealthPlan>,
    /// Signal number of a polite stop (default SIGTERM), and how long to wait before SIGKILL.
    pub stop_signal: i32,
    /// See `stop_signal`; `None` waits for ever, as Docker's `-1`.
    #[serde(with = "seconds")]
    pub stop_timeout: Option<Duration>,
    /// Remove the container when it has ended (`--rm`).
    pub auto_remove: bool,
    /// The container is killed when whoever launched it hangs up: a build's step does not outlive the build.
    #[serde(default)]
    pub leashed: bool,
    /// What is told of it in the journal; `None`: nothing.
    #[serde(default)]
    pub story: Option<Story>,
    /// Performed in this order when the container has ended for good, before waiters are told: cheap
    /// things a successor may need at once (names, port maps, leases).
    pub undo: Vec<Undo>,
    /// Performed after waiters were told: slow things (trees, mounts).
    pub undo_late: Vec<Undo>,
}

/// The one place in the product that knows there are two hulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A process on the host's kernel.
    Process,
    /// A process on a kernel of its own.
    Vm,
}

/// Sent by the engine once the network exists. Its descriptors travel beside it: the network namespace
/// first if `network_namespace`, the user namespace that it belongs to if `user_namespace`, the supervisor's own
/// network if `own_network`, then `service_sockets` sockets, then `machine` descriptors of a virtual machine, then
/// port reservations to be held, in that order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Go {
    /// Whether the first descriptor is a network namespace to enter.
    pub network_namespace: bool,
    /// Whether the next one is a user namespace to enter.
    #[serde(default)]
    pub user_namespace: bool,
    /// Whether the next one is the network namespace that the supervisor itself goes into: a user's, which stands
    /// for the host's.
    #[serde(default)]
    pub own_network: bool,
    /// How many of the following descriptors are sockets to serve (see [`crate::service`]).
    pub service_sockets: usize,
    /// Opaque to the sandbox: the plan of the services.
    pub service_plan: Option<serde_json::Value>,
    /// How many of the following descriptors a virtual machine is made of.
    #[serde(default)]
    pub machine: usize,
    /// Opaque to the sandbox: what the machine is told of them.
    #[serde(default)]
    pub links: Option<serde_json::Value>,
    /// Performed before [`Launch::undo`].
    pub undo: Vec<Undo>,
    /// Told in front of [`Story::endings`].
    #[serde(default)]
    pub endings: Vec<Entry>,
}

/// One thing to undo at the end. All are idempotent; a missing target is success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Unlink a file or symbolic link.
    Unlink(PathBuf),
    /// Unlink every file of a directory whose name ends like this.
    UnlinkEnding {
        /// Where.
        directory: PathBuf,
        /// How they end; an empty one unlinks nothing.
        ending: String,
    },
    /// Unlink every symbolic link of a directory whose text is this.
    UnlinkPointing {
        /// Where.
        directory: PathBuf,
        /// What they say.
        text: String,
    },
    /// Remove a whole tree, never following links, never crossing mounts.
    RemoveTree(PathBuf),
    /// The same, unless there is such a file.
    RemoveTreeUnless {
        /// The tree.
        tree: PathBuf,
        /// The file.
        exists: PathBuf,
    },
    /// Atomically rename, replacing nothing: used to take a record out of the listing before its tree goes.
    Rename(PathBuf, PathBuf),
    /// Send prepared netlink messages in the supervisor's own (the host's) network namespace.
    Netlink {
        /// `NETLINK_ROUTE` (0) or `NETLINK_NETFILTER` (12).
        protocol: i32,
        /// Complete messages, back to back.
        #[serde(with = "hex_bytes")]
        batch: Vec<u8>,
    },
    /// Send a prepared netlink dump, and each of its answers back under another message type.
    NetlinkEach {
        /// As for [`Undo::Netlink`].
        protocol: i32,
        /// The request, a complete message.
        #[serde(with = "hex_bytes")]
        dump: Vec<u8>,
        /// The type of what is sent back.
        kind: u16,
    },
}

/// Docker's restart policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Stay down.
    No,
    /// Restart unless stopped by a user.
    Always,
    /// As `Always`; differs only at boot.
    UnlessStopped,
    /// Restart after a non-zero exit, at most `max` times if given.
    OnFailure {
        /// `None`: no limit.
        max: Option<u32>,
    },
}

/// Whether standard input is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinPlan {
    /// `/dev/null`.
    Closed,
    /// Open (`-i`); closed when the first attached client ends its input (Docker's StdinOnce).
    Once,
    /// Open (`create -i`); survives clients.
    Open,
}

/// Where output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogPlan {
    /// Nowhere.
    None,
    /// Docker's json-file lines in `<container>/log/`, rotated.
    JsonFile {
        /// A file is rotated before it would grow past this many bytes. Default 10 MB.
        max_size: u64,
        /// How many files are kept, the live one included. Default 5.
        max_file: u32,
    },
}

/// A health probe, in Docker's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPlan {
    /// The command, already split (`CMD-SHELL` became `/bin/sh -c`).
    pub argv: Vec<String>,
    /// Time between the end of one probe and the start of the next.
    pub interval: Duration,
    /// A probe that runs longer is killed and counts as failed.
    pub timeout: Duration,
    /// Failures within it do not count.
    pub start_period: Duration,
    /// Interval during the start period.
    pub start_interval: Duration,
    /// Consecutive failures that make the container unhealthy.
    pub retries: u32,
    /// What to do then.
    pub on_unhealthy: OnUnhealthy,
}

/// What to do with a container that became unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnhealthy {
    /// Only report it, as Docker does.
    #[default]
    None,
    /// Kill it; the restart policy then applies.
    Kill,
    /// Restart it whatever the policy.
    Restart,
    /// Stop it and keep it down.
    Stop,
}

mod seconds {
    //! `Option<Duration>` as seconds.
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|d| d.as_secs()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_secs))
    }
}

mod hex_bytes {
    //! Bytes as hexadecimal text: JSON arrays of numbers are four times longer.
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text.as_bytes();
        if digits.len() % 2 != 0 {
            return Err(D::Error::custom("odd number of hexadecimal digits"));
        }
        digits
            .chunks(2)
            .map(|pair| {
                let pair = std::str::from_utf8(pair).map_err(D::Error::custom)?;
                u8::from_str_radix(pair, 16).map_err(D::Error::custom)
            })
            .collect()
    }
}
