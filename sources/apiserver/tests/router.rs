//! Every route, called without a socket: requests in a row on one machine, each
//! with what it must answer.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::Machine;
use std::sync::atomic::Ordering;

/// Sends requests of the form `METHOD URI BODY` and compares the answers,
/// which are of the form `STATUS BODY`; `…` at their end stands for more.
async fn check(machine: &Machine, steps: &[(&str, &str)]) {
    for (request, expected) in steps {
        let mut words = request.splitn(3, ' ');
        let method = words.next().unwrap();
        let uri = words.next().unwrap();
        let answer = machine
            .ask(method, uri, words.next().unwrap_or_default())
            .await;
        match expected.strip_suffix('…') {
            Some(start) => assert!(answer.starts_with(start), "{request}: {answer}"),
            None => assert_eq!(answer, *expected, "{request}"),
        }
    }
}

#[tokio::test]
async fn reading_settings() {
    let machine = Machine::with_user_data(&[
        "[settings.network]\nhostname = 'node-1'\n[settings.updates]\nseed = 7",
    ]);
    check(
        &machine,
        &[
            (
                "GET /settings",
                r#"200 {"kernel":{"hugepages":{"static":{"essential":false}},"lockdown":"integrity"},"metrics":{"send-metrics":false},"motd":"Hello","network":{"hostname":"node-1"},"ntp":{"options":["iburst"],"time-servers":["pool.ntp.org"]},"oci-hooks":{"log4j-hotpatch-enabled":false},"updates":{"ignore-waves":false,"seed":7,"version-lock":"latest","wait-for-kubelet":true},"user-data-policy":"lenient"}"#,
            ),
            ("GET /settings/", "200 {…"),
            ("GET /settings?keys=settings.motd", r#"200 {"motd":"Hello"}"#),
            (
                "GET /settings?keys=settings.motd,settings.ntp.options",
                r#"200 {"motd":"Hello","ntp":{"options":["iburst"]}}"#,
            ),
            (
                "GET /settings?keys=settings.motd&prefix=settings.ntp",
                r#"200 {"motd":"Hello"}"#,
            ),
            ("GET /settings?prefix=mot", r#"200 {"motd":"Hello"}"#),
            ("GET /settings?prefix=settings.mot", r#"200 {"motd":"Hello"}"#),
            ("GET /settings?prefix=settings.nothing", "200 {}"),
            ("GET /settings?prefix=", "400 parameter prefix is empty"),
            ("GET /settings?keys=", "400 parameter keys is empty"),
            ("GET /settings?keys=a..b", "400 invalid key \"a..b\": a part of it is empty"),
            ("GET /settings?prefix=a%20b", "400 invalid prefix \"a b\""),
            (
                "GET /settings?keys=settings.network.https-proxy",
                "404 settings.network.https-proxy is not set",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn reading_everything() {
    let machine = Machine::new();
    check(
        &machine,
        &[
            ("GET /?prefix=settings.motd", r#"200 {"settings":{"motd":"Hello"}}"#),
            // Nothing is implied here.
            ("GET /?prefix=motd", "200 {}"),
            ("GET /?prefix=os.v", r#"200 {"os":{"variant_id":"test","version_id":"0.1.0"}}"#),
            ("GET /?prefix=", "400 parameter prefix is empty"),
            ("GET /?prefix=.x", "400 invalid prefix \".x\""),
            (
                "GET /?prefix=services.chronyd.restart",
                r#"200 {"services":{"chronyd":{"restart-commands":["systemctl try-reload-or-restart chronyd.service","systemctl try-restart chronyd.service"]}}}"#,
            ),
        ],
    )
    .await;
    let all = machine.send("GET", "/", "").await;
    let all: serde_json::Value = serde_json::from_slice(&all.body).unwrap();
    let keys: Vec<&String> = all.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["configuration-files", "os", "services", "settings"]);
}

#[tokio::test]
async fn what_the_host_is_made_of() {
    let machine = Machine::new();
    let arch = std::env::consts::ARCH;
    let os = format!(
        r#"200 {{"arch":"{arch}","build_id":"abcdef12","pretty_name":"Bulkhead 0.1.0 (test)","variant_id":"test","version_id":"0.1.0"}}"#
    );
    check(&machine, &[("GET /os", &os)]).await;
    check(
        &machine,
        &[
            ("GET /os?prefix=version_id", r#"200 {"version_id":"0.1.0"}"#),
            ("GET /os?prefix=os.build", r#"200 {"build_id":"abcdef12"}"#),
            ("GET /os?prefix=", "400 parameter prefix is empty"),
            (
                "GET /services?names=motd,resolver",
                r#"200 {"motd":{"configuration-files":["motd"],"restart-commands":[]},"resolver":{"configuration-files":["hosts"],"restart-commands":["systemctl try-restart resolver.service"]}}"#,
            ),
            (
                "GET /services?prefix=chronyd.configuration-files",
                r#"200 {"chronyd":{"configuration-files":["chrony-conf","hosts"]}}"#,
            ),
            ("GET /services?names=none", "404 services has no entry \"none\""),
            ("GET /services?names=", "400 parameter names is empty"),
            (
                "GET /configuration-files?names=chrony-conf",
                r#"200 {"chrony-conf":{"mode":"0600","path":"/etc/chrony.conf","template-path":"/usr/share/bulkhead/templates/chrony/chrony.conf"}}"#,
            ),
            (
                "GET /configuration-files?prefix=motd.path",
                r#"200 {"motd":{"path":"/etc/motd"}}"#,
            ),
            (
                "GET /configuration-files?names=none",
                "404 configuration-files has no entry \"none\"",
            ),
            (
                "GET /metadata/affected-services?keys=settings.motd,settings.network.hosts,settings.dns",
                r#"200 {"settings.motd":["motd"],"settings.network.hosts":["chronyd","resolver"]}"#,
            ),
            ("GET /metadata/affected-services", "400 parameter keys is missing"),
            ("GET /metadata/affected-services?keys=", "400 parameter keys is empty"),
            (
                "GET /metadata/setting-generators",
                r#"200 {"settings.host-containers.admin.user-data":"admin-user-data","settings.kubernetes.cluster-dns-ip":"cluster-dns-ip","settings.kubernetes.hostname-override":"hostname-override","settings.kubernetes.max-pods":"max-pods","settings.kubernetes.node-ip":"node-ip","settings.kubernetes.provider-id":"provider-id","settings.network.hostname":"hostname","settings.updates.seed":"update-seed"}"#,
            ),
            ("GET /metadata/templates?keys=settings.motd", "200 {}"),
            ("GET /metadata/templates", "400 parameter keys is missing"),
        ],
    )
    .await;
}

#[tokio::test]
async fn transactions() {
    let machine = Machine::new();
    check(
        &machine,
        &[
            ("GET /tx", "200 {}"),
            ("GET /tx?tx=unknown", "200 {}"),
            ("DELETE /tx?tx=unknown", "200 []"),
            ("GET /tx/list", "200 []"),
            ("POST /tx/commit?tx=a", "422 transaction \"a\" holds no changes"),
            ("POST /tx/commit_and_apply", "422 transaction \"default\" holds no changes"),
            (r#"PATCH /settings?tx=a {"motd":"one"}"#, "204"),
            (r#"PATCH /settings?tx=a {"ntp":{"options":["x"]}}"#, "204"),
            (r#"PATCH /settings {"motd":"two"}"#, "204"),
            ("GET /tx?tx=a", r#"200 {"motd":"one","ntp":{"options":["x"]}}"#),
            ("GET /tx", r#"200 {"motd":"two"}"#),
            ("GET /tx/list", r#"200 ["a","default"]"#),
            // Nothing holds before it is committed.
            ("GET /settings?prefix=motd", r#"200 {"motd":"Hello"}"#),
            ("POST /tx/commit?tx=a", r#"200 ["settings.motd","settings.ntp.options"]"#),
            ("GET /settings?prefix=motd", r#"200 {"motd":"one"}"#),
            ("GET /tx?tx=a", "200 {}"),
            ("DELETE /tx", r#"200 ["settings.motd"]"#),
            ("GET /tx/list", "200 []"),
            // The same value again is a change all the same.
            (r#"PATCH /settings?tx=b {"motd":"one"}"#, "204"),
            ("POST /tx/commit_and_apply?tx=b", r#"200 ["settings.motd"]"#),
            // An empty table is no change.
            (r#"PATCH /settings?tx=c {"ntp":{}}"#, "204"),
            ("POST /tx/commit?tx=c", "422 transaction \"c\" holds no changes"),
            ("GET /tx?tx=", "200 {}"),
            (
                r#"PATCH /settings?tx= {"motd":"x"}"#,
                "400 a transaction's name has 1 to 256 characters, none of them a control character",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn faulty_changes_name_the_key() {
    let machine = Machine::new();
    check(
        &machine,
        &[
            ("PATCH /settings {", "400 the body is not JSON: …"),
            ("PATCH /settings", "400 the body is not JSON: …"),
            ("PATCH /settings []", "400 settings: expected a table, got a list"),
            (
                r#"PATCH /settings {"mtod":"x"}"#,
                "400 settings.mtod: unknown key; did you mean settings.motd?",
            ),
            (
                r#"PATCH /settings {"settings":{"motd":"x"}}"#,
                "400 settings.settings: unknown key",
            ),
            (
                r#"PATCH /settings {"motd":null}"#,
                "400 settings.motd: expected a text of at most 64 KiB (a string), got null, which is no value (use unset to remove a setting)",
            ),
            (
                r#"PATCH /settings {"motd":1,"ntp":{"options":["a",2]},"kernel":{"lockdown":"x"}}"#,
                "400 settings.motd: expected a text of at most 64 KiB (a string), got the number 1; put it in quotes (with apiclient set: --json)\n\
                 settings.ntp.options: item 2: expected a text of one line (a string), got the number 2; put it in quotes (with apiclient set: --json)\n\
                 settings.kernel.lockdown: expected one of none, integrity, confidentiality",
            ),
            (r#"PATCH /settings?strength=medium {}"#, "400 invalid strength \"medium\": use strong or weak"),
            ("GET /tx/list", "200 []"),
        ],
    )
    .await;
}

#[tokio::test]
async fn key_pairs() {
    let machine = Machine::new();
    let pairs = |list: &[&str]| serde_json::json!({ "request_payload": list }).to_string();
    for (list, expected) in [
        (&["settings.motd=a=b"][..], "204"),
        (
            &["motd=x", r#"kernel.sysctl."net.ipv4.ip_forward"=on"#],
            "204",
        ),
        (
            &[
                "kernel.modules.xfs.allowed=true",
                "kernel.modules.xfs.autoload=false",
            ],
            "204",
        ),
        (&["motd"], "400 pair 1 is not of the form key=value"),
        (
            &["a..b=1"],
            "400 invalid key \"a..b\": a part of it is empty",
        ),
        (
            &["motd=x", "nothing=1"],
            "400 settings.nothing: unknown key",
        ),
        (
            &["motd=42"],
            "400 settings.motd: expected a text of at most 64 KiB (a string), got the number 42; put it in quotes (with apiclient set: --json)",
        ),
    ] {
        let answer = machine
            .ask("PATCH", "/settings/keypair?tx=t", &pairs(list))
            .await;
        assert_eq!(answer, expected, "{list:?}");
    }
    check(
        &machine,
        &[
            (
                "GET /tx?tx=t",
                r#"200 {"kernel":{"modules":{"xfs":{"allowed":true,"autoload":false}},"sysctl":{"net.ipv4.ip_forward":"on"}},"motd":"x"}"#,
            ),
            ("PATCH /settings/keypair {}", "400 the body is not {\"request_payload\":[…"),
            (
                "POST /tx/commit?tx=t",
                r#"200 ["settings.kernel.modules.xfs.allowed","settings.kernel.modules.xfs.autoload","settings.kernel.sysctl.\"net.ipv4.ip_forward\"","settings.motd"]"#,
            ),
            (
                "GET /settings?keys=settings.kernel.sysctl.%22net.ipv4.ip_forward%22",
                r#"200 {"kernel":{"sysctl":{"net.ipv4.ip_forward":"on"}}}"#,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn unsetting() {
    let machine = Machine::new();
    check(
        &machine,
        &[
            (
                r#"PATCH /settings {"motd":"x","ntp":{"options":["a"],"time-servers":["b"]}}"#,
                "204",
            ),
            ("POST /tx/commit", "200 […"),
            (
                "DELETE /settings?keys=settings.motd,settings.ntp&tx=u",
                "204",
            ),
            ("GET /settings?prefix=motd", r#"200 {"motd":"x"}"#),
            ("GET /tx/list", r#"200 ["u"]"#),
            (
                "POST /tx/commit_and_apply?tx=u",
                r#"200 ["settings.motd","settings.ntp.options","settings.ntp.time-servers"]"#,
            ),
            ("GET /settings?prefix=motd", r#"200 {"motd":"Hello"}"#),
            (
                "GET /settings?prefix=ntp.o",
                r#"200 {"ntp":{"options":["iburst"]}}"#,
            ),
            // Once more is no fault.
            ("DELETE /settings?keys=motd", "204"),
            ("POST /tx/commit", r#"200 ["settings.motd"]"#),
            // In one transaction what comes last counts.
            (r#"PATCH /settings {"motd":"x"}"#, "204"),
            ("DELETE /settings?keys=motd", "204"),
            (r#"PATCH /settings {"motd":"y"}"#, "204"),
            ("POST /tx/commit", r#"200 ["settings.motd"]"#),
            ("GET /settings?prefix=motd", r#"200 {"motd":"y"}"#),
            // A setting may be called by its other name.
            (
                r#"PATCH /settings {"boot":{"kernel-parameters":{"nosmt":[]}}}"#,
                "204",
            ),
            ("POST /tx/commit", r#"200 ["settings.boot.kernel.nosmt"]"#),
            (
                "DELETE /settings?keys=settings.boot.kernel-parameters",
                "204",
            ),
            ("POST /tx/commit", r#"200 ["settings.boot.kernel.nosmt"]"#),
            ("DELETE /settings", "400 parameter keys is missing"),
            (
                "DELETE /settings?keys=nothing",
                "400 settings.nothing is not a setting",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn weak_values_give_way() {
    let machine = Machine::new();
    check(
        &machine,
        &[
            (r#"PATCH /settings?strength=weak {"motd":"weak"}"#, "204"),
            ("POST /tx/commit", r#"200 ["settings.motd"]"#),
            ("GET /settings?prefix=motd", r#"200 {"motd":"weak"}"#),
            (
                r#"PATCH /settings?strength=strong {"motd":"strong"}"#,
                "204",
            ),
            ("POST /tx/commit", r#"200 ["settings.motd"]"#),
            ("GET /settings?prefix=motd", r#"200 {"motd":"strong"}"#),
            (r#"PATCH /settings?strength=weak {"motd":"weak"}"#, "204"),
            (
                "POST /tx/commit",
                "500 settings.motd was set by the user; a weak value cannot replace it",
            ),
            // What could not be committed is still there.
            ("GET /tx/list", r#"200 ["default"]"#),
        ],
    )
    .await;
}

#[tokio::test]
async fn applying() {
    let machine = Machine::new();
    assert_eq!(machine.read("etc/motd"), "Hello\n");
    assert_eq!(
        machine.units.take(),
        Vec::<String>::new(),
        "boot restarts nothing"
    );
    check(
        &machine,
        &[
            (
                r#"PATCH /settings {"network":{"hosts":[["10.0.0.1",["a","b"]]]},"ntp":{"time-servers":["t"]}}"#,
                "204",
            ),
            ("POST /tx/commit_and_apply", "200 […"),
        ],
    )
    .await;
    machine.app.apply_wanted().await;
    assert_eq!(machine.read("etc/chrony.conf"), "pool t\n");
    assert!(machine.read("etc/hosts").ends_with("\n10.0.0.1 a b\n"));
    // chronyd would be reloaded for one file and restarted for the other.
    assert_eq!(
        machine.units.take(),
        ["restart resolver.service", "restart chronyd.service"]
    );

    // Nothing differs, so nothing is restarted.
    check(
        &machine,
        &[
            (r#"PATCH /settings {"ntp":{"time-servers":["t"]}}"#, "204"),
            ("POST /tx/commit_and_apply", "200 […"),
            ("POST /tx/apply", "204"),
        ],
    )
    .await;
    machine.app.apply_wanted().await;
    assert_eq!(machine.units.take(), Vec::<String>::new());

    // Somebody's edit is undone by applying everything, or the key it is made of.
    for uri in ["/tx/apply", "/tx/apply?keys=settings.ntp.options"] {
        std::fs::write(machine.folder.path().join("etc/chrony.conf"), "edited").unwrap();
        assert_eq!(machine.ask("POST", uri, "").await, "204");
        machine.app.apply_wanted().await;
        assert_eq!(machine.read("etc/chrony.conf"), "pool t\n");
        assert_eq!(machine.units.take(), ["reload chronyd.service"]);
    }
    check(
        &machine,
        &[
            ("POST /tx/apply?keys=", "400 parameter keys is empty"),
            ("POST /tx/apply?keys=a..b", "400 invalid key…"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_template_that_fails_changes_nothing() {
    let machine = Machine::new();
    let template = "usr/share/bulkhead/templates/chrony/chrony.conf";
    std::fs::write(
        machine.folder.path().join(template),
        "{{ settings.ntp.nothing }}",
    )
    .unwrap();
    check(
        &machine,
        &[
            (
                r#"PATCH /settings {"motd":"new","ntp":{"options":[]}}"#,
                "204",
            ),
            ("POST /tx/commit_and_apply", "200 […"),
        ],
    )
    .await;
    machine.app.apply_wanted().await;
    assert_eq!(machine.read("etc/motd"), "Hello\n");
    assert_eq!(machine.units.take(), Vec::<String>::new());
}

#[tokio::test]
async fn many_changes_are_applied_at_once() {
    let machine = Machine::new();
    for n in 0..64 {
        let body = format!(r#"{{"ntp":{{"time-servers":["t{n}"]}}}}"#);
        let uri = format!("/settings?tx=t{n}");
        assert_eq!(machine.ask("PATCH", &uri, &body).await, "204");
        let uri = format!("/tx/commit_and_apply?tx=t{n}");
        assert!(machine.ask("POST", &uri, "").await.starts_with("200"));
    }
    machine.app.apply_wanted().await;
    assert_eq!(machine.read("etc/chrony.conf"), "pool t63\n");
    assert_eq!(machine.units.take(), ["reload chronyd.service"]);
}

#[tokio::test]
async fn actions() {
    let machine = Machine::new();
    assert_eq!(machine.ask("POST", "/actions/reboot", "").await, "204");
    assert_eq!(machine.units.take(), ["reboot host"]);

    // What was committed before is applied before, though nobody waits for it.
    let body = r#"PATCH /settings {"ntp":{"time-servers":["t"]}}"#;
    let requests = [(body, "204"), ("POST /tx/commit_and_apply", "200 […")];
    check(&machine, &requests).await;
    assert_eq!(machine.ask("POST", "/actions/reboot", "").await, "204");
    let done = machine.units.take();
    assert_eq!(done, ["reload chronyd.service", "reboot host"]);

    machine
        .units
        .reboot_is_blocked
        .store(true, Ordering::Relaxed);
    check(
        &machine,
        &[(
            "POST /actions/reboot",
            "500 reboot failed: an inhibitor is in the way",
        )],
    )
    .await;
}

#[tokio::test]
async fn network_configuration() {
    let machine = Machine::new();
    let stored = || machine.read("var/lib/bulkhead/net.toml");
    let valid = "version = 1\n[eth0]\ndhcp4 = true\n";
    let uri = "/actions/network/configure";
    assert_eq!(machine.ask("POST", uri, valid).await, "204");
    assert_eq!(stored(), valid);
    assert_eq!(
        machine
            .ask("POST", uri, "version = 1\n[eth0]\ndhpc4 = true\n[eth1]\n")
            .await,
        "400 line 3: eth0.dhpc4: unknown key; did you mean dhcp4?\n\
         line 4: eth1: needs dhcp4 or dhcp6"
    );
    assert_eq!(stored(), valid);
    check(
        &machine,
        &[
            (
                "GET /actions/network/configure",
                "405 /actions/network/configure does not take GET",
            ),
            ("POST /actions/network/configure", "204"),
        ],
    )
    .await;
    assert_eq!(stored(), "");
    std::fs::remove_dir_all(machine.app.host.root().join("var/lib/bulkhead")).unwrap();
    let answer = machine.ask("POST", uri, valid).await;
    assert!(answer.starts_with("500 replacing "), "{answer}");
}

#[tokio::test]
async fn reports() {
    let machine =
        Machine::with_user_data(&["[settings]\nmotd = 'x'", " \n", "[settings]\nmtod = 1"]);
    check(
        &machine,
        &[
            ("GET /report", "200 [{\"name\":\"boot\",…"),
            (
                "GET /report/user-data",
                "200 test (given): accepted\n\
                 test (given): empty\n\
                 test (given): accepted in part\n  \
                 line 2: settings.mtod: unknown key; did you mean settings.motd? [skipped]",
            ),
            (
                "GET /report/user-data?format=json",
                r#"200 {"looked-at":true,"stopped":false,"sources":[{"name":"test","location":"given","outcome":"accepted"},{"name":"test","location":"given","outcome":"empty"},{"name":"test","location":"given","outcome":"in-part","faults":[{"key":"settings.mtod","line":2,"reason":"unknown key; did you mean settings.motd?","suggestion":"settings.motd","severity":"skipped"}]}]}"#,
            ),
            ("GET /report/user-data?format=xml", "400 unsupported format"),
            ("GET /report/boot?format=xml", "400 unsupported format"),
            (
                "GET /report/node",
                "404 no node report: this variant has no kubelet",
            ),
            ("GET /settings?prefix=motd", r#"200 {"motd":"x"}"#),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_node_report_is_made_when_it_is_asked_for() {
    let machine = Machine::new();
    let write = |path: &str, text: &str| {
        let path = machine.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("usr/lib/systemd/system/node-report.service", "");
    machine.units.take();
    let failed = machine.ask("GET", "/report/node", "").await;
    assert!(failed.starts_with("500 no report: opening "), "{failed}");
    assert_eq!(machine.units.take(), ["start node-report.service"]);
    write(
        "run/bulkhead/node-report.json",
        r#"{"troubles":[{"cause":"registry","message":"EOF","seconds_ago":3}]}"#,
    );
    check(
        &machine,
        &[
            (
                "GET /report/node",
                "200 a registry drops or refuses connections\n  see the registry, \
                 settings.container-registry, network and proxy\n  3 s ago: EOF",
            ),
            (
                "GET /report/node?format=json",
                r#"200 {"troubles":[{"cause":"registry","message":"EOF","seconds_ago":3}]}"#,
            ),
        ],
    )
    .await;
    let reports = machine.ask("GET", "/report", "").await;
    assert!(reports.contains("\"name\":\"node\""), "{reports}");
}

#[tokio::test]
async fn other_paths_and_methods() {
    let machine = Machine::new();
    check(
        &machine,
        &[
            ("GET /nothing", "404 no such path: /nothing"),
            ("GET /updates", "404 no such path: /updates"),
            ("GET /settings/motd", "404 no such path: /settings/motd"),
            ("PUT /settings {}", "405 /settings does not take PUT"),
            ("GET /tx/commit", "405 /tx/commit does not take GET"),
        ],
    )
    .await;
}

#[tokio::test]
async fn too_many_and_too_large_transactions() {
    let machine = Machine::new();
    for n in 0..256 {
        let uri = format!("/settings?tx=t{n}");
        assert_eq!(machine.ask("PATCH", &uri, r#"{"motd":"x"}"#).await, "204");
    }
    let answer = machine
        .ask("PATCH", "/settings?tx=more", r#"{"motd":"x"}"#)
        .await;
    assert!(
        answer.starts_with("429 256 transactions are open already"),
        "{answer}"
    );
    assert_eq!(
        machine
            .ask("PATCH", "/settings?tx=t0", r#"{"motd":"y"}"#)
            .await,
        "204"
    );

    let machine = Machine::new();
    let keys: serde_json::Map<String, serde_json::Value> = (0..9_000)
        .map(|n| (format!("key{n}"), "x".repeat(150).into()))
        .collect();
    let body = serde_json::json!({ "kernel": { "sysctl": keys } }).to_string();
    let mut refused = String::new();
    for n in 0..20 {
        let answer = machine
            .ask("PATCH", &format!("/settings?tx=t{n}"), &body)
            .await;
        if answer != "204" {
            refused = answer;
            break;
        }
    }
    assert!(
        refused.starts_with("429 open transactions hold more than"),
        "{refused}"
    );
}

#[tokio::test]
async fn documents_out_of_proportion_are_refused() {
    let machine = Machine::new();
    let keys: serde_json::Map<String, serde_json::Value> = (0..100_000)
        .map(|n| (format!("k{n}"), "x".into()))
        .collect();
    let body = serde_json::json!({ "kernel": { "sysctl": keys } }).to_string();
    check(
        &machine,
        &[(
            &format!("PATCH /settings {body}"),
            "400 settings: the document has 100002 keys; at most 10000 are taken",
        )],
    )
    .await;
    let deep = format!(
        "PATCH /settings {}{}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    check(
        &machine,
        &[(&deep, "400 the body is not JSON: recursion limit exceeded…")],
    )
    .await;
}

#[tokio::test]
async fn settings_outlive_a_reboot_and_user_data_is_taken_once() {
    let first = "[settings]\nmotd = 'from user data'";
    let second = "[settings]\nmotd = 'changed user data'";
    let machine = Machine::with_user_data(&[first]);
    assert_eq!(machine.read("etc/motd"), "from user data\n");
    check(
        &machine,
        &[
            (r#"PATCH /settings {"ntp":{"options":["x"]}}"#, "204"),
            ("POST /tx/commit", "200 […"),
            (r#"PATCH /settings {"motd":"pending"}"#, "204"),
        ],
    )
    .await;
    let machine = machine.reboot(&[second]);
    assert_eq!(machine.read("etc/motd"), "from user data\n");
    check(
        &machine,
        &[
            (
                "GET /settings?prefix=ntp.o",
                r#"200 {"ntp":{"options":["x"]}}"#,
            ),
            ("GET /tx/list", "200 []"),
            (
                "GET /report/user-data",
                "200 user data was taken at an earlier boot\ntest (given): accepted",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn documents_are_checked() {
    let machine = Machine::with_user_data(&[]);
    check(
        &machine,
        &[
            ("POST /check [settings]", r#"200 {"faults":[]}"#),
            ("POST /check", r#"200 {"faults":[]}"#),
            (
                "POST /check [settings]\nmtod = 1\npki.x.trusted = 1",
                r#"200 {"faults":[{"key":"settings.mtod","line":2,"reason":"unknown key; did you mean settings.motd?","suggestion":"settings.motd","severity":"skipped"},{"key":"settings.pki.x.trusted","line":3,"reason":"expected true or false, got the number 1","severity":"fatal"}]}"#,
            ),
            (
                "POST /check IyEvYmluL3No",
                r#"200 {"faults":[{"key":"settings","line":null,"reason":"user data is a script; Bulkhead runs none; only a TOML document of settings is taken","severity":"fatal"}]}"#,
            ),
            ("GET /check", "405 /check does not take GET"),
        ],
    )
    .await;
    // Nothing of it was taken.
    check(&machine, &[("GET /settings?prefix=pki", "200 {}")]).await;
}

#[tokio::test]
async fn user_data_that_stopped_the_boot_gets_another_chance_until_something_is_set() {
    let bad = "[settings]\nmotd = 'bad'\npki.x.trusted = 1";
    let good = "[settings]\nmotd = 'good'";
    let machine = Machine::with_user_data(&[bad]);
    assert_eq!(machine.read("etc/motd"), "Hello\n");
    let machine = machine.reboot(&[good]);
    assert_eq!(machine.read("etc/motd"), "good\n");

    let machine = Machine::with_user_data(&[bad]);
    check(
        &machine,
        &[
            (r#"PATCH /settings {"motd":"by hand"}"#, "204"),
            ("POST /tx/commit", "200 […"),
        ],
    )
    .await;
    let machine = machine.reboot(&[bad]).reboot(&[good]);
    assert_eq!(machine.read("etc/motd"), "by hand\n");
}

#[tokio::test]
async fn later_user_data_wins_and_defaults_are_not_stored() {
    let machine = Machine::with_user_data(&[
        "[settings]\nmotd = 'a'\nntp.options = ['a']",
        "[settings]\nmotd = 'b'",
    ]);
    check(
        &machine,
        &[
            ("GET /settings?prefix=motd", r#"200 {"motd":"b"}"#),
            (
                "GET /settings?prefix=ntp.o",
                r#"200 {"ntp":{"options":["a"]}}"#,
            ),
        ],
    )
    .await;
    let stored = machine.read("var/lib/bulkhead/settings/current");
    assert!(!stored.contains("pool.ntp.org"), "{stored}");
    // A new release has another default; what the user set stays.
    let defaults = "[settings]\nmotd = 'new'\nntp.time-servers = ['new']";
    let path = machine
        .folder
        .path()
        .join("usr/share/bulkhead/defaults.toml");
    std::fs::write(path, defaults).unwrap();
    let machine = machine.reboot(&[]);
    check(
        &machine,
        &[
            ("GET /settings?prefix=motd", r#"200 {"motd":"b"}"#),
            (
                "GET /settings?prefix=ntp",
                r#"200 {"ntp":{"options":["a"],"time-servers":["new"]}}"#,
            ),
        ],
    )
    .await;
}
