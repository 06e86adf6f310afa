use super::*;
use crate::progress::Progress;
use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use std::time::SystemTime;
use tempfile::TempDir;

/// A workspace with a program, a library that it uses, and what it does not use.
fn workspace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [
        (
            "Cargo.toml",
            r#"
                [workspace]
                resolver = "3"
                members = ["sources/*", "tools/*"]
                default-members = ["tools/tool"]
                [workspace.package]
                edition = "2024"
                [workspace.dependencies]
                greeting = { path = "sources/greeting" }
                serde = "1"
                proptest = "1"
                [workspace.lints.rust]
                unsafe_code = "deny"
                [profile.dev]
                opt-level = 1
                [profile.host]
                inherits = "release"
                strip = true
                panic = "abort"
            "#,
        ),
        (
            "sources/hello/Cargo.toml",
            r#"
                [package]
                name = "hello"
                edition.workspace = true
                [lints]
                workspace = true
                [dependencies]
                greeting.workspace = true
                [dev-dependencies]
                proptest.workspace = true
                [[test]]
                name = "odd"
                harness = false
            "#,
        ),
        (
            "sources/hello/src/main.rs",
            "fn main() { println!(\"{}\", greeting::text()); }",
        ),
        ("sources/hello/tests/odd.rs", "fn main() {}"),
        (
            "sources/greeting/Cargo.toml",
            "[package]\nname = \"greeting\"\nedition.workspace = true\n",
        ),
        (
            "sources/greeting/src/lib.rs",
            "pub fn text() -> &'static str { include_str!(\"../text\").trim() }",
        ),
        ("sources/greeting/text", "hello\n"),
        (
            "sources/other/Cargo.toml",
            "[package]\nname = \"other\"\nedition.workspace = true\n",
        ),
        (
            "sources/other/src/main.rs",
            "fn main() { println!(\"other\"); }",
        ),
        (
            "tools/tool/Cargo.toml",
            "[package]\nname = \"tool\"\n[dependencies]\nserde.workspace = true\n",
        ),
        ("tools/tool/src/main.rs", "fn main() {}"),
        (
            "Cargo.lock",
            r#"
                version = 4
                [[package]]
                name = "greeting"
                version = "0.0.0"
                [[package]]
                name = "hello"
                version = "0.0.0"
                dependencies = ["greeting", "proptest"]
                [[package]]
                name = "other"
                version = "0.0.0"
                [[package]]
                name = "proptest"
                version = "1.0.0"
                source = "registry+https://index.invalid"
                checksum = "00"
                [[package]]
                name = "serde"
                version = "1.0.0"
                source = "registry+https://index.invalid"
                checksum = "01"
                [[package]]
                name = "tool"
                version = "0.0.0"
                dependencies = ["serde"]
            "#,
        ),
    ] {
        write(folder.path(), path, text);
    }
    folder
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn set(link: Linkage, crates: &[&str]) -> ProgramSet {
    ProgramSet {
        link,
        crates: crates.iter().map(|name| name.to_string()).collect(),
    }
}

#[test]
fn a_source_is_what_its_programs_reach() {
    let folder = workspace();
    let source = Source::read(folder.path(), &["hello"]).unwrap();
    let paths: Vec<&str> = source.files.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "Cargo.toml",
            "sources/greeting/Cargo.toml",
            "sources/greeting/src/lib.rs",
            "sources/greeting/text",
            "sources/hello/Cargo.toml",
            "sources/hello/src/main.rs",
            "sources/hello/tests/odd.rs",
        ]
    );
    let text = |path: &str| String::from_utf8(source.files[path].content.clone()).unwrap();
    let manifest: Table = text("Cargo.toml").parse().unwrap();
    assert_eq!(
        manifest["workspace"]["members"].as_array().unwrap().len(),
        2,
        "{manifest:?}"
    );
    let shared: Vec<&String> = table(&manifest, &["workspace", "dependencies"])
        .unwrap()
        .keys()
        .collect();
    assert_eq!(shared, ["greeting"]);
    assert!(!text("sources/hello/Cargo.toml").contains("proptest"));
    assert!(source.lock.contains("greeting") && source.lock.contains("hello"));
    for absent in ["proptest\"\nversion", "serde", "tool", "other"] {
        assert!(!source.lock.contains(absent), "{absent} in {}", source.lock);
    }
}

#[test]
fn a_hash_changes_with_what_counts_and_nothing_else() {
    let folder = workspace();
    let root = folder.path();
    let hash = || Source::read(root, &["hello"]).unwrap().hash();
    let replace = |path: &str, from: &str, to: &str| {
        let text = fs::read_to_string(root.join(path)).unwrap();
        assert!(text.contains(from), "{path} has no {from}");
        fs::write(root.join(path), text.replace(from, to)).unwrap();
    };
    let mut last = hash();
    for (path, from, to, counts) in [
        ("sources/other/src/main.rs", "other", "another", false),
        ("tools/tool/Cargo.toml", "serde", "greeting", false),
        (
            "Cargo.toml",
            "unsafe_code = \"deny\"",
            "unsafe_code = \"warn\"",
            false,
        ),
        ("Cargo.toml", "serde = \"1\"", "serde = \"1.1\"", false),
        ("Cargo.toml", "opt-level = 1", "opt-level = 2", false),
        (
            "Cargo.lock",
            "checksum = \"01\"",
            "checksum = \"02\"",
            false,
        ),
        (
            "Cargo.lock",
            "checksum = \"00\"",
            "checksum = \"03\"",
            false,
        ),
        ("Cargo.toml", "strip = true", "strip = false", true),
        ("sources/greeting/text", "hello", "good day", true),
        (
            "sources/hello/src/main.rs",
            "fn main",
            "// words\nfn main",
            true,
        ),
        (
            "sources/hello/Cargo.toml",
            "name = \"hello\"",
            "version = \"0.1.0\"\nname = \"hello\"",
            true,
        ),
    ] {
        replace(path, from, to);
        let now = hash();
        assert_eq!(now != last, counts, "{path}: {from} → {to}");
        last = now;
    }
}

#[test]
fn sources_that_cannot_be_built_are_refused() {
    let check = |path: &str, text: &str, expected: &str| {
        let folder = workspace();
        write(folder.path(), path, text);
        let error = Source::read(folder.path(), &["hello"]).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    };
    let manifest =
        |dependency: &str| format!("[package]\nname = \"hello\"\n[dependencies]\n{dependency}");
    let member = "sources/hello/Cargo.toml";
    check(
        member,
        "not toml",
        "sources/hello/Cargo.toml is not valid TOML",
    );
    check(
        member,
        &manifest("absent.workspace = true"),
        "inherits the dependency absent",
    );
    check(
        member,
        &manifest("x.path = \"../../tools/tool\""),
        "only crates in sources/",
    );
    check(
        member,
        &manifest("x.path = \"../../../elsewhere\""),
        "leads outside",
    );
    check("Cargo.lock", "version = 4\n", "has no packages");
    check(
        "Cargo.lock",
        "[[package]]\nname = \"greeting\"\nversion = \"1\"\n",
        "no entry for hello",
    );
    let folder = workspace();
    let error = Source::read(folder.path(), &["no-such"]).unwrap_err();
    assert!(
        format!("{error:#}").contains("sources/no-such/Cargo.toml"),
        "{error:#}"
    );
}

#[test]
fn a_lock_may_lose_packages_but_not_gain_any() {
    let lock = |names: &[&str]| -> String {
        names
            .iter()
            .map(|name| format!("[[package]]\nname = \"{name}\"\nversion = \"1\"\n"))
            .collect()
    };
    check_lock(&lock(&["a", "b"]), &lock(&["a"])).unwrap();
    check_lock(&lock(&["a"]), "version = 4").unwrap();
    let error = check_lock(&lock(&["a"]), &lock(&["a", "b"])).unwrap_err();
    assert!(error.to_string().contains("does not have b 1"), "{error}");
    let other = lock(&["a"]).replace("version = \"1\"", "version = \"2\"");
    assert!(check_lock(&lock(&["a"]), &other).is_err());
}

/// Builds `set` of the workspace at `root` in a store and cache of its own.
struct Workshop {
    folder: TempDir,
    store: Store,
    toolchain: Toolchain,
}

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store"), u64::MAX).unwrap();
        Self {
            folder,
            store,
            toolchain: Toolchain::of_this_machine().unwrap(),
        }
    }

    fn build(&self, root: &Path, set: &ProgramSet, cached: bool) -> Result<Entry> {
        let context = JobContext::new(
            "programs",
            &self.folder.path().join("logs"),
            &Progress::silent(),
        );
        let cache = self.folder.path().join("cargo-target");
        let source = set.source(root)?;
        let arch = crate::sdk::workstation()?;
        let cache = cached.then_some(cache.as_path());
        set.build(&context, &source, &self.toolchain, arch, &self.store, cache)
    }

    fn said(&self, entry: &Entry, program: &str) -> String {
        let output = std::process::Command::new(entry.path().join(program))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn programs_are_the_same_wherever_they_are_built() {
    let programs = set(Linkage::Dynamic, &["hello", "other"]);
    let (here, there) = (workspace(), workspace());
    let (first, second) = (Workshop::new(), Workshop::new());
    let a = first.build(here.path(), &programs, true).unwrap();
    let b = second.build(there.path(), &programs, false).unwrap();
    assert_eq!(a.key(), b.key());
    assert_eq!(first.said(&a, "hello"), "hello\n");
    for program in ["hello", "other"] {
        let read = |entry: &Entry| fs::read(entry.path().join(program)).unwrap();
        assert!(read(&a) == read(&b), "{program} differs");
        check_hardening(&read(&a), Linkage::Dynamic);
    }
    assert_eq!(
        fs::read_dir(b.path()).unwrap().count(),
        2,
        "more than the programs was left"
    );
}

#[test]
fn a_static_program_needs_nothing() {
    let folder = workspace();
    let workshop = Workshop::new();
    let entry = workshop
        .build(folder.path(), &set(Linkage::Static, &["hello"]), true)
        .unwrap();
    assert_eq!(workshop.said(&entry, "hello"), "hello\n");
    check_hardening(
        &fs::read(entry.path().join("hello")).unwrap(),
        Linkage::Static,
    );
}

#[test]
fn a_cached_target_folder_never_hides_a_change() {
    let folder = workspace();
    let workshop = Workshop::new();
    let programs = set(Linkage::Dynamic, &["hello"]);
    let said = |root: &Path| {
        let entry = workshop.build(root, &programs, true).unwrap();
        workshop.said(&entry, "hello")
    };
    assert_eq!(said(folder.path()), "hello\n");
    // Another clone, whose files are older than the last build.
    let other = workspace();
    let text = other.path().join("sources/greeting/text");
    fs::write(&text, "good day\n").unwrap();
    File::open(&text)
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(said(other.path()), "good day\n");
    workshop.store.clear().unwrap();
    assert_eq!(said(folder.path()), "hello\n");
}

#[test]
fn a_compile_error_is_shown() {
    let folder = workspace();
    write(
        folder.path(),
        "sources/hello/src/main.rs",
        "fn main() { no_such_thing }",
    );
    let workshop = Workshop::new();
    let error = workshop
        .build(folder.path(), &set(Linkage::Dynamic, &["hello"]), true)
        .unwrap_err();
    let text = format!("{error:#}");
    for part in [
        "cannot build hello",
        "no_such_thing",
        "sources/hello/src/main.rs",
        "programs.log",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

fn check_hardening(bytes: &[u8], link: Linkage) {
    let header = elf::FileHeader64::<Endianness>::parse(bytes).unwrap();
    let endian = header.endian().unwrap();
    assert_eq!(
        header.e_type.get(endian),
        elf::ET_DYN,
        "not position-independent"
    );
    let segments = header.program_headers(endian, bytes).unwrap();
    let has = |kind| {
        segments
            .iter()
            .any(|segment| segment.p_type(endian) == kind)
    };
    assert!(has(elf::PT_GNU_RELRO), "no RELRO");
    assert_eq!(has(elf::PT_INTERP), link == Linkage::Dynamic, "interpreter");
    let stack = segments
        .iter()
        .find(|segment| segment.p_type(endian) == elf::PT_GNU_STACK);
    assert_eq!(
        stack.unwrap().p_flags(endian) & elf::PF_X,
        0,
        "executable stack"
    );
    let entries = segments
        .iter()
        .find_map(|segment| segment.dynamic(endian, bytes).unwrap())
        .unwrap();
    let flag = |tag: u32| {
        let entry = entries
            .iter()
            .find(|entry| entry.tag32(endian) == Some(tag));
        entry.map_or(0, |entry| entry.d_val(endian))
    };
    assert_ne!(
        flag(elf::DT_FLAGS_1) & u64::from(elf::DF_1_NOW),
        0,
        "symbols are bound late"
    );
    assert_ne!(
        flag(elf::DT_FLAGS_1) & u64::from(elf::DF_1_PIE),
        0,
        "not a PIE"
    );
}
