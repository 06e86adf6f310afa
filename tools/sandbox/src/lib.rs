//! Runs build steps and emulators in unprivileged namespaces.
