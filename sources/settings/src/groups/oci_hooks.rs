//! `settings.oci-hooks`.

use crate::model::group;

group! {
    /// Hooks of containers. There are none any more.
    pub struct OciHooks {
        /// Deprecated: it is accepted and does nothing.
        "log4j-hotpatch-enabled" => log4j_hotpatch_enabled: bool, default false;
    }
}
