//! `/check`: what is wrong with a document of user data.

use crate::app::App;
use crate::http::{Answer, Reply, Request};
use ::settings::Variant;
use api_types::UserDataCheck;

/// `POST /check` (ours). The document is the body; it is judged as user data of a
/// first boot of this host, and changes nothing.
pub async fn check(app: &App, request: &Request) -> Reply {
    let variant = Variant::parse(&app.host.os().variant_id).ok();
    let body = request.body.clone();
    let work = tokio::task::spawn_blocking(move || early_boot::check_for(body, variant.as_ref()));
    let checked = work
        .await
        .map_err(|error| Answer::text(500, format!("the check did not finish: {error}")))?;
    Ok(Answer::json(&UserDataCheck {
        faults: checked.faults,
    }))
}
