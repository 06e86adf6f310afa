//! `settings.ntp`.

use crate::model::group;
use crate::types::{SingleLine, Url};

group! {
    /// Time synchronisation.
    pub struct Ntp {
        /// Time servers, or names of pools of them.
        "time-servers" => time_servers: Vec<Url>, default ["pool.ntp.org"];
        /// Options of every server, as chrony's `pool` directive takes them.
        "options" => options: Vec<SingleLine>, default ["iburst"];
    }
}
