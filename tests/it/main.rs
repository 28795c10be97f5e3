//! Every integration test: each in a world of its own, all side by side.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, as it should")]

use std::process::ExitCode;

use cata_tests::harness;

mod api;
mod apparmor;
mod archives;
mod attach;
mod bad_input;
mod build;
mod build_frontend;
mod build_outputs;
mod build_peers;
mod build_private;
mod build_sources;
mod changes;
mod compare;
mod compose;
mod copy;
mod engines;
mod events;
mod exec;
mod faults;
mod hostile;
mod hypervisor;
mod isolation;
mod kernels;
mod life;
mod limits;
mod logs;
mod machine_faults;
mod machine_servers;
mod machine_systems;
mod machines;
mod network;
mod oci;
mod oci_checkpoint;
mod oci_confinement;
mod oci_engines;
mod oci_hostile;
mod oci_rootless;
mod oci_systemd;
mod postgres;
mod prune;
mod registry;
mod rootless;
mod screen;
mod users;
mod volumes;
mod worlds;

/// A [`harness::Test`] named after its function and module.
macro_rules! test {
    ($name:ident) => {{
        const NAME: &str = concat!(module_path!(), "::", stringify!($name));
        ::cata_tests::harness::Test::new(NAME.split_at("it::".len()).1, $name)
    }};
}
use test;

fn main() -> ExitCode {
    let modules = [
        api::tests(),
        apparmor::tests(),
        archives::tests(),
        attach::tests(),
        bad_input::tests(),
        build::tests(),
        build_frontend::tests(),
        build_peers::tests(),
        build_outputs::tests(),
        build_sources::tests(),
        build_private::tests(),
        changes::tests(),
        compare::tests(),
        compose::tests(),
        copy::tests(),
        engines::tests(),
        events::tests(),
        exec::tests(),
        faults::tests(),
        hostile::tests(),
        isolation::tests(),
        hypervisor::tests(),
        kernels::tests(),
        life::tests(),
        limits::tests(),
        logs::tests(),
        machine_faults::tests(),
        machine_servers::tests(),
        machine_systems::tests(),
        machines::tests(),
        network::tests(),
        oci::tests(),
        oci_checkpoint::tests(),
        oci_confinement::tests(),
        oci_engines::tests(),
        oci_hostile::tests(),
        oci_rootless::tests(),
        oci_systemd::tests(),
        postgres::tests(),
        prune::tests(),
        registry::tests(),
        rootless::tests(),
        screen::tests(),
        users::tests(),
        volumes::tests(),
        worlds::tests(),
    ];
    harness::main(&modules.concat())
}
