//! Which request goes to which route.

use crate::app::App;
use crate::http::{Answer, Request};
use crate::routes::{
    actions, check, history, inventory, metadata, network, report, settings, support_bundle, tx,
};

/// Answers a request.
pub async fn route(app: &App, request: &Request) -> Answer {
    let path = match request.path.as_str() {
        "/" => "/",
        path => path.strip_suffix('/').unwrap_or(path),
    };
    let reply = match (request.method.as_str(), path) {
        ("GET", "/") => inventory::everything(app, request).await,
        ("GET", "/settings") => settings::get(app, request).await,
        ("PATCH", "/settings") => settings::patch(app, request).await,
        ("DELETE", "/settings") => settings::unset(app, request).await,
        ("PATCH", "/settings/keypair") => settings::patch_key_pairs(app, request).await,
        ("GET", "/settings/changes") => settings::changes(app).await,
        ("GET", "/settings/history") => history::list(app).await,
        ("POST", "/settings/rollback") => history::roll_back(app, request).await,
        ("GET", "/v2/tx") => tx::get_with_strength(app, request).await,
        ("GET", "/tx") => tx::get(app, request).await,
        ("DELETE", "/tx") => tx::delete(app, request).await,
        ("GET", "/tx/list") => tx::list(app).await,
        ("POST", "/tx/commit") => tx::commit(app, request).await,
        ("POST", "/tx/apply") => tx::apply(app, request).await,
        ("POST", "/tx/commit_and_apply") => tx::commit_and_apply(app, request).await,
        ("GET", "/os") => inventory::os(app, request),
        ("GET", "/services") => inventory::services(app, request),
        ("GET", "/configuration-files") => inventory::configuration_files(app, request),
        ("GET", "/metadata/affected-services") => metadata::affected_services(app, request),
        ("GET", "/metadata/setting-generators") => metadata::setting_generators(app),
        ("GET", "/v2/metadata/setting-generators") => {
            metadata::setting_generators_with_strength(app)
        }
        ("GET", "/metadata/settings") => metadata::settings(app, request).await,
        ("GET", "/metadata/templates") => metadata::templates(request),
        ("POST", "/actions/network/configure") => network::configure(app, request).await,
        ("POST", "/actions/reboot") => actions::reboot(app).await,
        ("POST", "/check") => check::check(app, request).await,
        ("GET", "/report") => report::list(),
        ("GET", "/report/boot") => report::boot(request).await,
        ("POST", "/actions/support-bundle") => support_bundle::make(app).await,
        ("GET", "/report/support-bundle") => support_bundle::get(app).await,
        ("GET", "/report/user-data") => report::user_data(app, request).await,
        (method, path) if PATHS.contains(&path) => {
            Err(Answer::text(405, format!("{path} does not take {method}")))
        }
        (_, path) => Err(Answer::text(404, format!("no such path: {path}"))),
    };
    reply.unwrap_or_else(|error| error)
}

/// All paths, so that a wrong method can be told from a wrong path.
const PATHS: &[&str] = &[
    "/",
    "/settings",
    "/settings/keypair",
    "/settings/changes",
    "/settings/history",
    "/settings/rollback",
    "/v2/tx",
    "/v2/metadata/setting-generators",
    "/metadata/settings",
    "/tx",
    "/tx/list",
    "/tx/commit",
    "/tx/apply",
    "/tx/commit_and_apply",
    "/os",
    "/services",
    "/configuration-files",
    "/metadata/affected-services",
    "/metadata/setting-generators",
    "/metadata/templates",
    "/actions/network/configure",
    "/actions/reboot",
    "/check",
    "/actions/support-bundle",
    "/report",
    "/report/boot",
    "/report/support-bundle",
    "/report/user-data",
];
