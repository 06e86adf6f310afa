//! Child processes, atomic writes, os-release, logging and main set-up.
