//! Container images that the registry gets.

use super::Programs;
use anyhow::Result;
use oci_image::{Config, Image, Layer};

/// Those programs of busybox that containers call by name.
pub(super) const APPLETS: [&str; 23] = [
    "cat", "cp", "dmesg", "echo", "grep", "head", "httpd", "id", "ip", "killall", "ls", "mkdir",
    "mount", "nc", "sed", "sh", "sleep", "sync", "tail", "touch", "true", "umount", "wget",
];

/// Small programs, and a shell that is started unless the container says otherwise. The
/// image called `name` shares its layer with no other.
pub(super) fn tools(programs: &Programs, name: &str) -> Result<Image> {
    let mut layer = applets(programs, &APPLETS)?;
    layer.folder(&format!("srv/{name}"), 0o755)?;
    Ok(with_shell(programs, layer))
}

/// The same, run as the user `agent` (1000), who is in the groups `users` (100) and `api` (274),
/// of which only the upper one of its layers knows.
pub(super) fn tools_of_a_user(programs: &Programs) -> Result<Image> {
    let mut lower = applets(programs, &APPLETS)?;
    lower.file("etc/passwd", 0o644, b"agent:x:7:7::/:/bin/sh\n")?;
    let mut upper = Layer::new();
    upper.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/:/bin/sh\nagent:x:1000:100::/:/bin/sh\n",
    )?;
    upper.link("etc/group", "/srv/group")?;
    upper.file("srv/group", 0o644, b"users:x:100:\napi:x:274:agent\n")?;
    let config = Config {
        entrypoint: vec!["/bin/sh".to_string()],
        environment: vec!["PATH=/bin".to_string()],
        user: "agent".to_string(),
        ..Config::default()
    };
    Ok(Image::new(programs.nodes, &config, vec![lower, upper]))
}

/// kube-proxy, and the program by which it speaks to the packet filter.
pub(super) fn service_proxy(programs: &Programs) -> Result<Image> {
    let mut layer = Layer::new();
    add_packet_filter(&mut layer, programs)?;
    layer.copy("usr/bin/kube-proxy", programs.contained("kube-proxy")?)?;
    let config = Config {
        entrypoint: vec!["/usr/bin/kube-proxy".to_string()],
        environment: vec!["PATH=/usr/bin:/usr/sbin".to_string()],
        ..Config::default()
    };
    Ok(programs.image(&config, layer))
}

/// What agents have that look into a node: the small programs, a client of the container
/// runtime, and programs that work in the kernel by eBPF.
pub(super) fn agents(programs: &Programs) -> Result<Image> {
    let mut layer = applets(programs, &APPLETS)?;
    // Whose C library has the loader that programs of Go ask for, too.
    add_packet_filter(&mut layer, programs)?;
    for name in ["crictl", "ebpf-guard", "trace-connections"] {
        layer.copy(&format!("bin/{name}"), programs.contained(name)?)?;
    }
    Ok(with_shell(programs, layer))
}

/// The driver of volumes, and the programs that it runs.
pub(super) fn volume_driver(programs: &Programs) -> Result<Image> {
    const PROGRAM: &str = "csi-example";
    let mut layer = Layer::new();
    layer.tree("", programs.contained_tree(PROGRAM)?)?;
    for folder in ["lib", "lib64"] {
        layer.link(folder, &format!("usr/{folder}"))?;
    }
    layer.folder("tmp", 0o1777)?;
    let config = Config {
        entrypoint: vec![format!("/usr/bin/{PROGRAM}")],
        environment: vec!["PATH=/usr/bin:/usr/sbin".to_string()],
        ..Config::default()
    };
    Ok(programs.image(&config, layer))
}

/// Adds the packet filter's program and all libraries that it needs.
fn add_packet_filter(layer: &mut Layer, programs: &Programs) -> Result<()> {
    layer.tree("", programs.contained_tree("nft")?)?;
    for folder in ["lib", "lib64"] {
        layer.link(folder, &format!("usr/{folder}"))?;
    }
    Ok(())
}

/// Small programs, called by these names.
pub(super) fn applets(programs: &Programs, names: &[&str]) -> Result<Layer> {
    let mut layer = Layer::new();
    layer.copy("bin/busybox", programs.contained("busybox")?)?;
    for name in names {
        layer.link(&format!("bin/{name}"), "busybox")?;
    }
    layer.folder("tmp", 0o1777)?;
    Ok(layer)
}

/// An image of one layer whose shell is started unless a container says otherwise.
fn with_shell(programs: &Programs, layer: Layer) -> Image {
    let config = Config {
        entrypoint: vec!["/bin/sh".to_string()],
        environment: vec!["PATH=/bin".to_string()],
        ..Config::default()
    };
    programs.image(&config, layer)
}
