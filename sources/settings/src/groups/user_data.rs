//! `settings.user-data-policy`.

use crate::types::choice_type;

choice_type! {
    /// What a fault in user data costs.
    UserDataPolicy {
        /// Faults in settings that decide the host's identity, its cluster or its
        /// security stop the boot; others are reported and left at their default.
        Lenient = "lenient",
        /// Any fault stops the boot.
        Strict = "strict",
    }
}
