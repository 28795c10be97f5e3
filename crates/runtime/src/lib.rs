//! OCI spec to process: plan, clone, mounts, lockdown, exec.
