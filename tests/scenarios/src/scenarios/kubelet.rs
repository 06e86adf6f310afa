//! When the boot of a node is complete.

use super::set;
use super::troubles::Host;
use crate::stage::{BOOT, Stage, marks};
use anyhow::{Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use test_vm::Wait;
use test_vm::api::Api;
use test_vm::disk::RawDisk;
use tls_client::fake::Authority;

/// Processor seconds of a boot in which kubelet is waited for in vain.
const UNWELL: f64 = 200.0;
const RUNTIME: &str = "unix:///run/containerd/containerd.sock";
/// With this one kubelet cannot start.
const NO_RUNTIME: &str = "unix:///run/none.sock";

/// A host whose kubelet cannot start says so, and stays up when there is no other image. It
/// completes its boot once kubelet is healthy, though no cluster answers.
pub(crate) fn has_to_be_healthy(stage: &mut Stage<'_>) -> Result<()> {
    let image = (stage.setup().node_twin)()?;
    let (mut builder, disk) = stage.machine_of(&image, "machine")?;
    let disk = disk.path().to_path_buf();
    let authority = Authority::generate();
    let user_data = format!(
        "[settings.kubernetes]\n\
         api-server = \"https://10.0.2.2:1\"\n\
         bootstrap-token = \"abcdef.0123456789abcdef\"\n\
         cluster-certificate = \"{}\"\n\
         cluster-name = \"nowhere\"\n\
         container-runtime-endpoint = \"{NO_RUNTIME}\"\n",
        BASE64_STANDARD.encode(authority.certificate())
    );
    builder.user_data = Some(user_data.into_bytes());
    let mut machine = stage.start(&builder)?;
    let said = machine.wait_for("boot not complete: kubelet is not healthy", UNWELL)?;
    stage.note(format!("unwell after {:.1} CPU s", said.cpu));
    machine.wait_for("there is no other image to try", UNWELL)?;
    ensure!(machine.resets() == 0, "the host restarts");
    Host::of(&mut machine, stage).has("kubelet")?;

    let api = Api::at(&machine.api_socket());
    let repaired = json!({ "kubernetes": { "container-runtime-endpoint": RUNTIME } });
    set(&api, &repaired)?;
    machine.skip_to_now();
    api.json("POST", "/actions/reboot", None)?;
    // From the shutdown on.
    machine.wait(&Wait::line(marks::BOOT_COMPLETE, 3.0 * BOOT).across_resets())?;
    stage.power_off(machine)?;
    stage
        .journal(&RawDisk::open(&disk)?)?
        .forbid("avc:  denied")
}
