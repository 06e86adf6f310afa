//! All routes, each with what it takes and what it answers. The router goes by this
//! table, and so does the documentation: `docs/reference/api.md` and
//! `docs/reference/openapi.yaml` are made from it.

use crate::app::App;
use crate::exec;
use crate::http::{Reply, Request};
use crate::routes::{
    absent, actions, check, ephemeral_storage, history, inventory, metadata, network, report,
    settings, support_bundle, tx, updates,
};
use crate::schema;
use api_types::EphemeralStorageWork;
use serde_json::Value;
use std::pin::Pin;

/// One route.
pub struct Route {
    /// `GET`, `POST` …
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// What it is for.
    pub summary: &'static str,
    /// Whether compatible hosts have it, too.
    pub origin: Origin,
    /// The parameters of its query.
    pub query: &'static [Parameter],
    /// The body that it takes.
    pub body: Body,
    /// What it answers when all is well; nothing if this release does not have it.
    pub success: Option<Success>,
    /// The statuses of its refusals, besides those that every route has
    /// ([`EVERYWHERE`]).
    pub refusals: &'static [u16],
    /// A request for the documentation, and those that go before it.
    pub example: Example,
    /// Answers a request.
    pub(crate) handle: Handler,
}

/// Where a route is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Bottlerocket has it.
    Bottlerocket,
    /// It is ours alone.
    Ours,
}

/// A parameter of a query.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be there.
    pub is_required: bool,
    /// What it may be.
    pub values: Values,
    /// What it does.
    pub about: &'static str,
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Keys of settings, with commas between them.
    Keys,
    /// Names of entries, with commas between them.
    Names,
    /// The beginning of dotted names.
    Prefix,
    /// The name of a transaction.
    Transaction,
    /// The number of a change.
    Number,
    /// One of some words.
    OneOf(&'static [&'static str]),
}

/// What body a route takes.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// None. One that is sent is not looked at.
    None,
    /// JSON of this schema.
    Json(fn() -> Value),
    /// A document of this media type.
    Document(&'static str),
}

/// An answer when all is well.
#[derive(Clone, Copy, Debug)]
pub enum Success {
    /// 204.
    Done,
    /// 200 with JSON of this schema.
    Json(fn() -> Value),
    /// 200 with text, or with JSON for `format=json`.
    TextOrJson,
    /// 200 with a file of this media type.
    File(&'static str),
    /// 101, and then messages.
    WebSocket,
}

/// Requests of the form `METHOD URI BODY`.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// What goes before.
    pub before: &'static [&'static str],
    /// The request itself; empty if the answer tells of the machine that it is made on.
    pub request: &'static str,
}

/// Statuses of refusals that any route can give: a body that is slow or too large, or a
/// broken one.
pub const EVERYWHERE: &[u16] = &[400, 408, 413];

pub(crate) type Answering<'r> = Pin<Box<dyn Future<Output = Reply> + Send + 'r>>;
pub(crate) type Handler = for<'r> fn(&'r App, &'r Request) -> Answering<'r>;

/// A handler from an expression in which `app` and `request` stand for both.
macro_rules! handler {
    (|$app:ident, $request:ident| $answer:expr) => {{
        fn handle<'r>($app: &'r App, $request: &'r Request) -> Answering<'r> {
            let _ = ($app, $request);
            Box::pin(async move { $answer })
        }
        handle
    }};
}

const fn optional(name: &'static str, values: Values, about: &'static str) -> Parameter {
    Parameter {
        name,
        is_required: false,
        values,
        about,
    }
}

const fn required(name: &'static str, values: Values, about: &'static str) -> Parameter {
    Parameter {
        is_required: true,
        ..optional(name, values, about)
    }
}

const fn example(request: &'static str) -> Example {
    Example {
        before: &[],
        request,
    }
}

const TX: Parameter = optional(
    "tx",
    Values::Transaction,
    "the transaction; `default` where none is named",
);
const STRENGTH: Parameter = optional(
    "strength",
    Values::OneOf(&["strong", "weak"]),
    "`strong`, the user's, which is usual; or `weak`, which gives way to the user's",
);
const WAIT: Parameter = optional(
    "wait",
    Values::OneOf(&["true", "false"]),
    "`true` (ours): the answer comes when all is applied, and says what was done",
);
const FORMAT: Parameter = optional(
    "format",
    Values::OneOf(&["text", "json"]),
    "`text`, which is usual, or `json`",
);
const SET_KEYS: Parameter = optional("keys", Values::Keys, "only these; each must be set");
const NAMES: Parameter = optional("names", Values::Names, "only these; each must be there");

/// A prefix in front of which a name is implied.
const fn prefix(about: &'static str) -> Parameter {
    optional("prefix", Values::Prefix, about)
}

/// What a route has whose machinery is not in this release.
const ABSENT: Route = Route {
    method: "POST",
    path: "",
    summary: "",
    origin: Origin::Bottlerocket,
    query: &[],
    body: Body::None,
    success: None,
    refusals: &[501],
    example: example(""),
    handle: handler!(|_app, request| absent::not_in_this_release(request)),
};

/// What the lists of ephemeral storage have in common.
const LIST: Route = Route {
    method: "GET",
    query: &[FORMAT],
    success: Some(Success::TextOrJson),
    refusals: &[500],
    ..ABSENT
};

/// What the actions upon updates have in common.
const UPDATE: Route = Route {
    success: Some(Success::Done),
    refusals: &[404, 409, 423, 500],
    ..ABSENT
};

/// The table.
pub static ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/",
        summary: "Everything: settings, system, services and configuration files.",
        origin: Origin::Bottlerocket,
        query: &[prefix(
            "only what begins so; nothing is implied in front of it",
        )],
        body: Body::None,
        success: Some(Success::Json(schema::everything)),
        refusals: &[],
        example: example("GET /?prefix=settings.motd"),
        handle: handler!(|app, request| inventory::everything(app, request).await),
    },
    Route {
        method: "GET",
        path: "/settings",
        summary: "The settings that hold, as a tree.",
        origin: Origin::Bottlerocket,
        query: &[
            SET_KEYS,
            prefix("only what begins so; `settings.` is implied. Not looked at with `keys`"),
        ],
        body: Body::None,
        success: Some(Success::Json(schema::settings)),
        refusals: &[404],
        example: example("GET /settings?prefix=ntp"),
        handle: handler!(|app, request| settings::get(app, request).await),
    },
    Route {
        method: "PATCH",
        path: "/settings",
        summary: "Adds a tree of settings to a transaction.",
        origin: Origin::Bottlerocket,
        query: &[TX, STRENGTH],
        body: Body::Json(schema::settings),
        success: Some(Success::Done),
        refusals: &[429],
        example: example(r#"PATCH /settings?tx=t {"motd":"Hello"}"#),
        handle: handler!(|app, request| settings::patch(app, request).await),
    },
    Route {
        method: "DELETE",
        path: "/settings",
        summary: "Has a transaction take back what the user set: settings, or tables of them.",
        origin: Origin::Ours,
        query: &[required("keys", Values::Keys, "what to unset"), TX],
        body: Body::None,
        success: Some(Success::Done),
        refusals: &[429],
        example: example("DELETE /settings?keys=settings.motd"),
        handle: handler!(|app, request| settings::unset(app, request).await),
    },
    Route {
        method: "PATCH",
        path: "/settings/keypair",
        summary: "Adds settings of the form `settings.a.b=value` to a transaction.",
        origin: Origin::Bottlerocket,
        query: &[TX, STRENGTH],
        body: Body::Json(schema::key_pairs),
        success: Some(Success::Done),
        refusals: &[429],
        example: example(
            r#"PATCH /settings/keypair?tx=t {"request_payload":["settings.motd=Hello"]}"#,
        ),
        handle: handler!(|app, request| settings::patch_key_pairs(app, request).await),
    },
    Route {
        method: "GET",
        path: "/settings/changes",
        summary: "What the user set, against what would hold otherwise. Secrets are not shown.",
        origin: Origin::Ours,
        query: &[],
        body: Body::None,
        success: Some(Success::Json(schema::changes)),
        refusals: &[],
        example: Example {
            before: &[r#"PATCH /settings {"motd":"Hi"}"#, "POST /tx/commit"],
            request: "GET /settings/changes",
        },
        handle: handler!(|app, _request| settings::changes(app).await),
    },
    Route {
        method: "GET",
        path: "/settings/history",
        summary: "The last changes of the user's settings, newest first; at most 16 are kept. \
                  The time is null where the clock was not set.",
        origin: Origin::Ours,
        query: &[],
        body: Body::None,
        success: Some(Success::Json(schema::history)),
        refusals: &[],
        example: Example {
            before: &[r#"PATCH /settings {"motd":"Hi"}"#, "POST /tx/commit"],
            request: "GET /settings/history",
        },
        handle: handler!(|app, _request| history::list(app).await),
    },
    Route {
        method: "POST",
        path: "/settings/rollback",
        summary: "Gives the user's settings the values that they had after an earlier change, and \
                  applies that. It is a change like any other, and can be taken back.",
        origin: Origin::Ours,
        query: &[
            required(
                "to",
                Values::Number,
                "the number of that change; 0 is before the first",
            ),
            WAIT,
        ],
        body: Body::None,
        success: Some(Success::Json(schema::changed)),
        refusals: &[404, 413, 500],
        example: Example {
            before: &[
                r#"PATCH /settings {"motd":"Hi"}"#,
                "POST /tx/commit_and_apply",
            ],
            request: "POST /settings/rollback?to=0&wait=true",
        },
        handle: handler!(|app, request| history::roll_back(app, request).await),
    },
    Route {
        method: "GET",
        path: "/tx",
        summary: "What a transaction is going to set, as a tree. An unknown one holds nothing.",
        origin: Origin::Bottlerocket,
        query: &[TX],
        body: Body::None,
        success: Some(Success::Json(schema::settings)),
        refusals: &[],
        example: Example {
            before: &[r#"PATCH /settings?tx=t {"motd":"Hi"}"#],
            request: "GET /tx?tx=t",
        },
        handle: handler!(|app, request| tx::get(app, request).await),
    },
    Route {
        method: "DELETE",
        path: "/tx",
        summary: "Drops a transaction, and answers with its keys.",
        origin: Origin::Bottlerocket,
        query: &[TX],
        body: Body::None,
        success: Some(Success::Json(schema::texts)),
        refusals: &[],
        example: Example {
            before: &[r#"PATCH /settings?tx=t {"motd":"Hi"}"#],
            request: "DELETE /tx?tx=t",
        },
        handle: handler!(|app, request| tx::delete(app, request).await),
    },
    Route {
        method: "GET",
        path: "/v2/tx",
        summary: "The same as `GET /tx`, with the strength of each value.",
        origin: Origin::Bottlerocket,
        query: &[TX],
        body: Body::None,
        success: Some(Success::Json(schema::transaction_with_strength)),
        refusals: &[],
        example: Example {
            before: &[r#"PATCH /settings?tx=t {"motd":"Hi"}"#],
            request: "GET /v2/tx?tx=t",
        },
        handle: handler!(|app, request| tx::get_with_strength(app, request).await),
    },
    Route {
        method: "GET",
        path: "/tx/list",
        summary: "The names of the transactions that hold something.",
        origin: Origin::Bottlerocket,
        query: &[],
        body: Body::None,
        success: Some(Success::Json(schema::texts)),
        refusals: &[],
        example: Example {
            before: &[r#"PATCH /settings?tx=t {"motd":"Hi"}"#],
            request: "GET /tx/list",
        },
        handle: handler!(|app, _request| tx::list(app).await),
    },
    Route {
        method: "POST",
        path: "/tx/commit",
        summary: "Stores what a transaction holds, all of it or nothing, and answers with the \
                  keys. A value that is set to what it was is a change all the same.",
        origin: Origin::Bottlerocket,
        query: &[TX],
        body: Body::None,
        success: Some(Success::Json(schema::texts)),
        refusals: &[422, 500],
        example: Example {
            before: &[r#"PATCH /settings?tx=t {"motd":"Hi"}"#],
            request: "POST /tx/commit?tx=t",
        },
        handle: handler!(|app, request| tx::commit(app, request).await),
    },
    Route {
        method: "POST",
        path: "/tx/apply",
        summary: "Has the files that read these settings, or all files, rendered, and units \
                  restarted that read files which differ. The answer does not wait for that.",
        origin: Origin::Bottlerocket,
        query: &[optional(
            "keys",
            Values::Keys,
            "what changed; everything without it",
        )],
        body: Body::None,
        success: Some(Success::Done),
        refusals: &[],
        example: example("POST /tx/apply?keys=settings.motd"),
        handle: handler!(|app, request| tx::apply(app, request).await),
    },
    Route {
        method: "POST",
        path: "/tx/commit_and_apply",
        summary: "Stores what a transaction holds and applies it.",
        origin: Origin::Bottlerocket,
        query: &[TX, WAIT],
        body: Body::None,
        success: Some(Success::Json(schema::changed)),
        refusals: &[422, 500],
        example: Example {
            before: &[r#"PATCH /settings?tx=t {"ntp":{"time-servers":["10.0.0.1"]}}"#],
            request: "POST /tx/commit_and_apply?tx=t&wait=true",
        },
        handle: handler!(|app, request| tx::commit_and_apply(app, request).await),
    },
    Route {
        method: "GET",
        path: "/os",
        summary: "What the image is.",
        origin: Origin::Bottlerocket,
        query: &[prefix("only what begins so; `os.` is implied")],
        body: Body::None,
        success: Some(Success::Json(schema::os)),
        refusals: &[],
        example: example("GET /os"),
        handle: handler!(|app, request| inventory::os(app, request)),
    },
    Route {
        method: "GET",
        path: "/services",
        summary: "The services that read rendered files, and how they are told of a change.",
        origin: Origin::Bottlerocket,
        query: &[NAMES, prefix("only what begins so; `services.` is implied")],
        body: Body::None,
        success: Some(Success::Json(schema::services)),
        refusals: &[404],
        example: example("GET /services?names=chronyd"),
        handle: handler!(|app, request| inventory::services(app, request)),
    },
    Route {
        method: "GET",
        path: "/configuration-files",
        summary: "The files that are rendered from settings.",
        origin: Origin::Bottlerocket,
        query: &[
            NAMES,
            prefix("only what begins so; `configuration-files.` is implied"),
        ],
        body: Body::None,
        success: Some(Success::Json(schema::configuration_files)),
        refusals: &[404],
        example: example("GET /configuration-files?names=chrony-conf"),
        handle: handler!(|app, request| inventory::configuration_files(app, request)),
    },
    Route {
        method: "GET",
        path: "/metadata/settings",
        summary: "What is known about settings or tables of them: meaning, type, default, value, \
                  and what a change concerns. Secrets are not shown.",
        origin: Origin::Ours,
        query: &[optional(
            "keys",
            Values::Keys,
            "only these; an unknown one is refused, with the nearest that there is",
        )],
        body: Body::None,
        success: Some(Success::Json(schema::settings_metadata)),
        refusals: &[404],
        example: example("GET /metadata/settings?keys=settings.ntp.time-servers"),
        handle: handler!(|app, request| metadata::settings(app, request).await),
    },
    Route {
        method: "GET",
        path: "/metadata/affected-services",
        summary: "Which services a change of these settings concerns.",
        origin: Origin::Bottlerocket,
        query: &[required("keys", Values::Keys, "the settings")],
        body: Body::None,
        success: Some(Success::Json(schema::lists_of_texts)),
        refusals: &[],
        example: example("GET /metadata/affected-services?keys=settings.network.hosts"),
        handle: handler!(|app, request| metadata::affected_services(app, request)),
    },
    Route {
        method: "GET",
        path: "/metadata/setting-generators",
        summary: "Settings that the host computes while they are unset, each with the name of \
                  what computes it.",
        origin: Origin::Bottlerocket,
        query: &[],
        body: Body::None,
        success: Some(Success::Json(schema::text_by_name)),
        refusals: &[],
        example: example("GET /metadata/setting-generators"),
        handle: handler!(|app, _request| metadata::setting_generators(app)),
    },
    Route {
        method: "GET",
        path: "/v2/metadata/setting-generators",
        summary: "The same, with the strength of what they compute.",
        origin: Origin::Bottlerocket,
        query: &[],
        body: Body::None,
        success: Some(Success::Json(schema::generators)),
        refusals: &[],
        example: example("GET /v2/metadata/setting-generators"),
        handle: handler!(|app, _request| metadata::setting_generators_with_strength(app)),
    },
    Route {
        method: "GET",
        path: "/metadata/templates",
        summary: "Settings that are made from others by a template. There are none.",
        origin: Origin::Bottlerocket,
        query: &[required("keys", Values::Keys, "the settings")],
        body: Body::None,
        success: Some(Success::Json(schema::text_by_name)),
        refusals: &[],
        example: example("GET /metadata/templates?keys=settings.motd"),
        handle: handler!(|_app, request| metadata::templates(request)),
    },
    Route {
        method: "POST",
        path: "/actions/reboot",
        summary: "Reboots, unless something inhibits it.",
        origin: Origin::Bottlerocket,
        query: &[],
        body: Body::None,
        success: Some(Success::Done),
        refusals: &[500],
        example: example("POST /actions/reboot"),
        handle: handler!(|app, _request| actions::reboot(app).await),
    },
    Route {
        method: "POST",
        path: "/actions/network/configure",
        summary: "Takes a `net.toml` for the next boot. An empty one stands for the usual \
                  network.",
        origin: Origin::Bottlerocket,
        query: &[],
        body: Body::Document("application/toml"),
        success: Some(Success::Done),
        refusals: &[500],
        example: example("POST /actions/network/configure version = 2"),
        handle: handler!(|app, request| network::configure(app, request).await),
    },
    Route {
        method: "POST",
        path: "/actions/support-bundle",
        summary: "Makes the support bundle, a file for whoever helps, and says where it lies. No \
                  secret of the settings is in it.",
        origin: Origin::Ours,
        query: &[],
        body: Body::None,
        success: Some(Success::Json(schema::support_bundle)),
        refusals: &[500],
        example: example(""),
        handle: handler!(|app, _request| support_bundle::make(app).await),
    },
    Route {
        method: "POST",
        path: "/check",
        summary: "Says what is wrong with a document of user data, as it is, compressed or in \
                  base64. Nothing is changed.",
        origin: Origin::Ours,
        query: &[],
        body: Body::Document("application/toml"),
        success: Some(Success::Json(schema::user_data_check)),
        refusals: &[],
        example: example("POST /check [settings]\nmotdd = 'Hello'"),
        handle: handler!(|app, request| check::check(app, request).await),
    },
    Route {
        method: "GET",
        path: "/report",
        summary: "The reports that there are.",
        origin: Origin::Bottlerocket,
        query: &[],
        body: Body::None,
        success: Some(Success::Json(schema::reports)),
        refusals: &[],
        example: example("GET /report"),
        handle: handler!(|app, _request| report::list(app)),
    },
    Route {
        method: "GET",
        path: "/report/boot",
        summary: "Where the time of this boot went.",
        origin: Origin::Ours,
        query: &[FORMAT],
        body: Body::None,
        success: Some(Success::TextOrJson),
        refusals: &[500],
        example: example(""),
        handle: handler!(|_app, request| report::boot(request).await),
    },
    Route {
        method: "GET",
        path: "/report/node",
        summary: "What keeps a node of a Kubernetes cluster from its work. Variants without \
                  kubelet do not have it.",
        origin: Origin::Ours,
        query: &[FORMAT],
        body: Body::None,
        success: Some(Success::TextOrJson),
        refusals: &[404, 500],
        example: example(""),
        handle: handler!(|app, request| report::node(app, request).await),
    },
    Route {
        method: "GET",
        path: "/report/support-bundle",
        summary: "Makes the support bundle and sends it.",
        origin: Origin::Ours,
        query: &[],
        body: Body::None,
        success: Some(Success::File("application/gzip")),
        refusals: &[500],
        example: example(""),
        handle: handler!(|app, _request| support_bundle::get(app).await),
    },
    Route {
        method: "GET",
        path: "/report/user-data",
        summary: "What became of user data.",
        origin: Origin::Ours,
        query: &[FORMAT],
        body: Body::None,
        success: Some(Success::TextOrJson),
        refusals: &[500],
        example: example("GET /report/user-data?format=json"),
        handle: handler!(|app, request| report::user_data(app, request).await),
    },
    Route {
        method: "GET",
        path: "/report/cis",
        summary: "Not in this release: there are no compliance reports yet.",
        query: &[FORMAT],
        ..ABSENT
    },
    Route {
        method: "GET",
        path: "/report/fips",
        summary: "Not in this release: there are no compliance reports yet.",
        query: &[FORMAT],
        ..ABSENT
    },
    Route {
        method: "GET",
        path: "/updates/status",
        summary: "How far an update is, and how the last command went. 404 while nobody has \
                  looked for updates on this host, 423 while a command is at work.",
        success: Some(Success::Json(schema::update_status)),
        refusals: &[404, 423, 500],
        example: example("GET /updates/status"),
        handle: handler!(|app, _request| updates::status(app).await),
        ..ABSENT
    },
    Route {
        path: "/actions/refresh-updates",
        summary: "Looks for updates. The answer comes when that has begun; the status tells \
                  what it came to.",
        refusals: &[423, 500],
        handle: handler!(|app, _request| updates::command(app, "refresh").await),
        ..UPDATE
    },
    Route {
        path: "/actions/prepare-update",
        summary: "Puts the chosen update into the slot that does not run. 409 unless the state \
                  is Available or Staged, and while what runs has not completed its boot; 404 \
                  if the last look for updates chose none.",
        handle: handler!(|app, _request| updates::command(app, "prepare").await),
        ..UPDATE
    },
    Route {
        path: "/actions/activate-update",
        summary: "Makes the prepared update boot next. 409 unless the state is Staged.",
        handle: handler!(|app, _request| updates::command(app, "activate").await),
        ..UPDATE
    },
    Route {
        path: "/actions/deactivate-update",
        summary: "Makes what runs boot next, and leaves the update prepared. 409 unless the \
                  state is Ready and the update does not run yet.",
        handle: handler!(|app, _request| updates::command(app, "deactivate").await),
        ..UPDATE
    },
    Route {
        path: "/actions/lockdown",
        summary: "Not in this release: the state partition is not locked over the API.",
        ..ABSENT
    },
    Route {
        method: "POST",
        path: "/actions/ephemeral-storage/init",
        summary: "Makes one file system of the host's ephemeral disks, or of those that the body \
                  names, unless that was done before. Without such disks nothing is done.",
        origin: Origin::Bottlerocket,
        query: &[],
        body: Body::Json(schema::ephemeral_storage_init),
        success: Some(Success::Done),
        refusals: &[500],
        example: example(""),
        handle: handler!(|app, request| ephemeral_storage::init(app, request).await),
    },
    Route {
        method: "POST",
        path: "/actions/ephemeral-storage/bind",
        summary: "Puts directories on that file system: those that the body names, or those of \
                  the variant if it names none.",
        origin: Origin::Bottlerocket,
        query: &[],
        body: Body::Json(schema::ephemeral_storage_bind),
        success: Some(Success::Done),
        refusals: &[500],
        example: example(""),
        handle: handler!(|app, request| ephemeral_storage::bind(app, request).await),
    },
    Route {
        path: "/actions/ephemeral-storage/list-disks",
        summary: "The disks that `init` takes where none are named.",
        handle: handler!(|app, request| {
            ephemeral_storage::list(app, request, EphemeralStorageWork::ListDisks).await
        }),
        ..LIST
    },
    Route {
        path: "/actions/ephemeral-storage/list-ebs-volumes",
        summary: "The EBS volumes that `init` takes.",
        handle: handler!(|app, request| {
            ephemeral_storage::list(app, request, EphemeralStorageWork::ListEbsVolumes).await
        }),
        ..LIST
    },
    Route {
        path: "/actions/ephemeral-storage/list-dirs",
        summary: "The directories that `bind` takes, besides those below `/mnt`.",
        handle: handler!(|app, request| {
            ephemeral_storage::list(app, request, EphemeralStorageWork::ListDirs).await
        }),
        ..LIST
    },
    Route {
        method: "GET",
        path: "/exec",
        summary: "Runs a command in a host container, over a WebSocket: \
                  [what travels over it](../api.md#exec).",
        origin: Origin::Bottlerocket,
        query: &[],
        body: Body::None,
        success: Some(Success::WebSocket),
        refusals: &[],
        example: example("GET /exec"),
        handle: handler!(|_app, _request| Err(exec::no_websocket())),
    },
];

impl Route {
    /// Every status that it can answer with, in order.
    pub fn statuses(&self) -> Vec<u16> {
        let success = self.success.map(|success| success.status());
        let mut statuses: Vec<u16> = success
            .into_iter()
            .chain(self.refusals.iter().copied())
            .chain(EVERYWHERE.iter().copied())
            .collect();
        statuses.sort_unstable();
        statuses.dedup();
        statuses
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Success {
    /// Its status.
    pub fn status(self) -> u16 {
        match self {
            Self::WebSocket => 101,
            Self::Done => 204,
            Self::Json(_) | Self::TextOrJson | Self::File(_) => 200,
        }
    }
}
