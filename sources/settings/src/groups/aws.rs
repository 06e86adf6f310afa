//! `settings.aws`.

use crate::model::group;
use crate::types::{Base64, SingleLine};

group! {
    /// Access to AWS.
    pub struct Aws {
        /// The region. On EC2 the host finds out where it is.
        "region" => region: SingleLine, example "\"eu-central-1\"";
        /// A file like `~/.aws/config`.
        "config" => config: Base64, secret true;
        /// A file like `~/.aws/credentials`.
        "credentials" => credentials: Base64, secret true;
        /// The profile in those files that the host's own services use.
        "profile" => profile: SingleLine, default "default", example "\"default\"";
    }
}
