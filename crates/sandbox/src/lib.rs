//! one container, one supervisor: state machine, stdio, logs, exec, health, restart.
