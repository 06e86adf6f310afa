//! Every `net.toml` in `tests/golden/network`, rendered and compared with the
//! units beside it. With `UPDATE_EXPECT=1` the units are written anew.

#![allow(clippy::unwrap_used, reason = "a test")]

use expect_test::expect_file;
use network::{net_toml, networkd};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_configuration_renders_as_recorded() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/network");
    let mut cases = 0;
    for case in fs::read_dir(&golden).unwrap() {
        let case = case.unwrap().path();
        let bytes = fs::read(case.join("net.toml")).unwrap();
        let configuration = net_toml::parse(&bytes).unwrap().unwrap();
        let mut files = networkd::render(&configuration);
        // An empty file, which would be tiresome to record in each case.
        assert_eq!(files.remove("80-ethernet.network").as_deref(), Some(""));
        for (name, text) in &files {
            expect_file![case.join(name)].assert_eq(text);
        }
        let rendered: BTreeSet<String> = files.into_keys().collect();
        let recorded: BTreeSet<String> = fs::read_dir(&case)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "net.toml")
            .collect();
        assert_eq!(rendered, recorded, "{}", case.display());
        cases += 1;
    }
    assert!(cases >= 8, "the cases were found");
}
