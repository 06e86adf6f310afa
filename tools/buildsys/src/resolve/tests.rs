use super::*;
use deb::digest::Sha256Digest;

/// "name version[, provides: …][, needs: …][, first: …]" as a package.
fn package(text: &str) -> Package {
    let mut parts = text.split(';').map(str::trim);
    let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
    let mut package = Package {
        name: name.to_string(),
        version: version.parse().unwrap(),
        architecture: "amd64".to_string(),
        source: name.to_string(),
        depends: String::new(),
        pre_depends: String::new(),
        provides: String::new(),
        path: format!("pool/{name}_{version}.deb"),
        size: 1,
        sha256: Sha256Digest::of(text.as_bytes()),
    };
    for part in parts {
        let (field, value) = part.split_once(": ").unwrap();
        *match field {
            "needs" => &mut package.depends,
            "first" => &mut package.pre_depends,
            _ => &mut package.provides,
        } = value.to_string();
    }
    package
}

fn universe(suites: &[(&str, &[&str])]) -> Universe {
    let mut universe = Universe::default();
    for (suite, packages) in suites {
        universe
            .add_suite(suite, packages.iter().map(|text| package(text)))
            .unwrap();
    }
    universe
}

/// The closure as "name version", or the error.
fn closure(
    universe: &Universe,
    requests: &[&str],
    exclude: &[&str],
) -> Result<Vec<String>, String> {
    let requests: Vec<Request> = requests.iter().map(|text| text.parse().unwrap()).collect();
    let exclude: Vec<String> = exclude.iter().map(|name| name.to_string()).collect();
    universe
        .closure(&requests, &exclude)
        .map(|offers| {
            offers
                .iter()
                .map(|offer| format!("{} {}", offer.package.name, offer.package.version))
                .collect()
        })
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn closures() {
    let universe = universe(&[
        (
            "trixie",
            &[
                "a 1; needs: b (>= 2), c | d; first: e",
                "b 1",
                "b 2",
                "c 1",
                "d 1; needs: virtual",
                "e 1; needs: a",
                "one 1; provides: virtual, versioned (= 3)",
                "two 1; provides: virtual",
                "only-virtual 1; needs: missing | virtual",
                "needs-version 1; needs: versioned (>= 2)",
                "needs-later 1; needs: versioned (>= 4)",
                "unmet 1; needs: missing (= 1) | nothing",
                "clash 1; needs: b (<< 2), a",
                "tool 1; needs: lib (= 1)",
                "lib 1",
                "optional 1; needs: two, virtual",
            ],
        ),
        ("trixie-security", &["c 2", "old 1"]),
        (
            "trixie-backports",
            &[
                "tool 2; needs: lib (= 2), helper",
                "lib 2",
                "helper 2",
                "b 9",
                "old 3",
            ],
        ),
    ]);
    let check = |requests: &[&str], exclude: &[&str], expected: &[&str]| {
        let found = closure(&universe, requests, exclude).unwrap();
        assert_eq!(found, expected, "{requests:?} without {exclude:?}");
    };
    check(&["b"], &[], &["b 2"]);
    check(&["c"], &[], &["c 2"]);
    check(&["old"], &[], &["old 1"]);
    check(&["a"], &[], &["a 1", "b 2", "c 2", "e 1"]);
    check(&["a"], &["c"], &["a 1", "b 2", "e 1"]);
    check(&["a", "d"], &[], &["a 1", "b 2", "d 1", "e 1", "one 1"]);
    check(&["only-virtual"], &[], &["one 1", "only-virtual 1"]);
    check(&["only-virtual"], &["one"], &["only-virtual 1", "two 1"]);
    check(&["optional"], &[], &["optional 1", "two 1"]);
    check(&["needs-version"], &[], &["needs-version 1", "one 1"]);
    check(&["tool"], &[], &["lib 1", "tool 1"]);
    check(
        &["tool/trixie-backports"],
        &[],
        &["helper 2", "lib 2", "tool 2"],
    );

    let fails = |requests: &[&str], expected: &str| {
        let error = closure(&universe, requests, &[]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    fails(
        &["nothing"],
        "no suite that is locked offers the package nothing",
    );
    fails(
        &["tool/trixie-security"],
        "offers the package tool/trixie-security",
    );
    fails(
        &["unmet"],
        "unmet 1 depends on missing (= 1) | nothing: no suite",
    );
    fails(&["needs-later"], "depends on versioned (>= 4)");
    fails(&["clash", "b"], "clash 1 depends on b (<< 2): but b is 2");
    fails(
        &["tool/trixie-backports", "lib"],
        "tool 2 depends on lib (= 2): but lib is 1",
    );
}

#[test]
fn requests() {
    let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
        let found = text.parse::<Request>().ok();
        let found = found
            .as_ref()
            .map(|request| (request.name.as_str(), request.suite.as_deref()));
        assert_eq!(found, expected, "{text:?}");
    };
    check("gcc", Some(("gcc", None)));
    check(
        "rustc/trixie-backports",
        Some(("rustc", Some("trixie-backports"))),
    );
    check("rustc/", None);
    check("Rust", None);
    check("", None);
}
