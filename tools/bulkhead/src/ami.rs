//! `bulkhead ami`: what an image is as an AMI.

use crate::image_choice::{self, ImageChoice};
use crate::output;
use anyhow::{Context, Result, bail, ensure};
use buildsys::image::content::DATA_VOLUME;
use buildsys::image::description::Description;
use buildsys::image::inspect;
use buildsys::progress;
use buildsys::project::{Arch, Project};
use serde::Serialize;
use serde_json::{Value, json};
use settings::{Platform, Variant};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Show how an image would be uploaded and registered as an AMI.
///
/// Nothing is sent anywhere. With --json, `register-image` is what
/// `aws ec2 register-image --cli-input-json` takes, once the snapshot's id is in it.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: ImageChoice,
    /// Say what would be done, and do nothing: so far it is all that there is
    #[arg(long)]
    dry_run: bool,
    /// First part of the AMI's name
    #[arg(long, default_value = "bulkhead")]
    name: String,
    /// Size in GiB of the second volume, which is blank and takes what pods write; that
    /// of the variant's data volume if not given
    #[arg(long, value_name = "GIB")]
    data_size: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What EBS takes and gives in one piece.
const BLOCK: usize = 512 * 1024;
const GIB: u64 = 1 << 30;
/// The root volume that Karpenter asks for unless it is told otherwise. A snapshot
/// that does not fit makes every launch fail.
const ROOT_LIMIT_GIB: u64 = 4;
/// Stands where the snapshot's id will be.
const SNAPSHOT: &str = "snap-to-be-made";

/// What would be uploaded and registered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Plan {
    snapshot: Snapshot,
    register_image: Value,
}

/// The snapshot of the image's disk.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Snapshot {
    file: PathBuf,
    /// Size of the volume in GiB.
    volume_size: u64,
    block_size: usize,
    blocks: u64,
    /// Blocks that are not all zero: only these are uploaded.
    written_blocks: u64,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    if !args.dry_run {
        bail!(
            "uploading and registering come with the publish tool; --dry-run shows what would be \
             done"
        );
    }
    let project = Project::find()?;
    let variant = args.image.variant(&project);
    image_choice::refuse_twin(variant)?;
    let is_for_ec2 = Variant::parse(variant).is_ok_and(|known| known.platform() == Platform::Aws);
    ensure!(
        is_for_ec2,
        "{variant} is not for EC2: name one that is, such as --variant aws-k8s-1.36"
    );
    let description = inspect::latest(&project, variant, args.image.arch)?;
    let folder = project.images_dir(variant, args.image.arch);
    let file = folder.join(&description.version).join("disk.img");
    let data_size = match args.data_size {
        Some(size) => size,
        None => data_size(&file.with_file_name(DATA_VOLUME))?,
    };
    let plan = plan(&file, &description, args.image.arch, &args.name, data_size)?;
    if args.json {
        output::print_json(&plan)?;
    } else {
        print_plan(&plan);
    }
    Ok(())
}

/// The size in GiB of the image's own data volume.
fn data_size(volume: &Path) -> Result<u64> {
    let metadata = volume.metadata().with_context(|| {
        format!(
            "the image has no data volume {}: say with --data-size how large it is to be",
            volume.display()
        )
    })?;
    Ok(metadata.len().div_ceil(GIB))
}

fn plan(file: &Path, image: &Description, arch: Arch, name: &str, data_size: u64) -> Result<Plan> {
    let snapshot = snapshot(file)?;
    ensure!(
        snapshot.volume_size <= ROOT_LIMIT_GIB,
        "{} needs a volume of {} GiB: one of {ROOT_LIMIT_GIB} GiB is what launchers ask for",
        file.display(),
        snapshot.volume_size
    );
    let architecture = match arch {
        Arch::X86_64 => "x86_64",
        Arch::Aarch64 => "arm64",
    };
    let name = format!(
        "{name}-{}-{}-v{}-{}",
        image.variant, image.arch, image.version, image.build_id
    );
    let tags = [
        ("Name", name.as_str()),
        ("bulkhead/variant", &image.variant),
        ("bulkhead/version", &image.version),
        ("bulkhead/build-id", &image.build_id),
    ];
    let tags = tags.map(|(key, value)| json!({ "Key": key, "Value": value }));
    let register_image = json!({
        "Name": name,
        "Description": format!("Bulkhead {} {}", image.variant, image.version),
        "Architecture": architecture,
        "VirtualizationType": "hvm",
        // There is no way to boot by a BIOS, which uefi-preferred would promise.
        "BootMode": "uefi",
        "EnaSupport": true,
        "SriovNetSupport": "simple",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {
                    "SnapshotId": SNAPSHOT,
                    "VolumeSize": snapshot.volume_size,
                    "VolumeType": "gp3",
                    "DeleteOnTermination": true,
                },
            },
            {
                "DeviceName": "/dev/xvdb",
                "Ebs": {
                    "VolumeSize": data_size,
                    "VolumeType": "gp3",
                    "DeleteOnTermination": true,
                },
            },
        ],
        "TagSpecifications": [{ "ResourceType": "image", "Tags": tags }],
    });
    Ok(Plan {
        snapshot,
        register_image,
    })
}

/// Reads the disk and counts what is in it.
fn snapshot(file: &Path) -> Result<Snapshot> {
    let read = || format!("cannot read {}", file.display());
    let disk = File::open(file).with_context(read)?;
    let zeros = vec![0; BLOCK];
    let mut block = Vec::with_capacity(BLOCK);
    let (mut size, mut blocks, mut written_blocks) = (0, 0, 0);
    loop {
        block.clear();
        let length = (&disk).take(BLOCK as u64).read_to_end(&mut block);
        let length = length.with_context(read)?;
        if length == 0 {
            break;
        }
        size += length as u64;
        blocks += 1;
        written_blocks += u64::from(block != zeros[..length]);
    }
    Ok(Snapshot {
        file: file.to_path_buf(),
        volume_size: size.div_ceil(GIB),
        block_size: BLOCK,
        blocks,
        written_blocks,
    })
}

fn print_plan(plan: &Plan) {
    let Snapshot {
        file,
        volume_size,
        block_size,
        blocks,
        written_blocks,
    } = &plan.snapshot;
    println!("snapshot");
    println!("  {:18} {}", "of", file.display());
    println!("  {:18} {volume_size} GiB", "volume");
    println!(
        "  {:18} {written_blocks} of {blocks}, {} to upload",
        "blocks",
        progress::size(written_blocks * *block_size as u64)
    );
    println!("image");
    let image = &plan.register_image;
    for field in [
        "Name",
        "Description",
        "Architecture",
        "VirtualizationType",
        "BootMode",
        "EnaSupport",
        "SriovNetSupport",
        "RootDeviceName",
    ] {
        println!("  {field:18} {}", plain(&image[field]));
    }
    println!(
        "  {:18} none: instances start with Secure Boot off",
        "UefiData"
    );
    println!("  {:18} none", "TpmSupport");
    for mapping in image["BlockDeviceMappings"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let ebs = &mapping["Ebs"];
        let from = match &ebs["SnapshotId"] {
            Value::Null => "blank",
            _ => "the snapshot",
        };
        println!(
            "  {:18} {from}, {} GiB, {}, gone with its instance",
            plain(&mapping["DeviceName"]),
            ebs["VolumeSize"],
            plain(&ebs["VolumeType"])
        );
    }
    let tags = image["TagSpecifications"][0]["Tags"].as_array();
    for tag in tags.into_iter().flatten() {
        println!(
            "  {:18} {}={}",
            "tag",
            plain(&tag["Key"]),
            plain(&tag["Value"])
        );
    }
}

/// A value of JSON as people read it.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    fn disk(size: u64, written: &[u64]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        for at in written {
            file.seek(SeekFrom::Start(*at)).unwrap();
            file.write_all(b"x").unwrap();
        }
        file
    }

    fn image() -> Description {
        let image = json!({
            "format": 1, "variant": "aws-k8s-1.36", "arch": "x86_64", "version": "1.2.3",
            "build-id": "0123abcd", "key": "k", "kernel": "6.12", "root-hash": "00",
            "sizes": { "root": 1, "verity": 1, "kernel-image": 1, "disk": 1, "files": 1 },
            "authenticode": {}, "unsigned-sha256": "00", "settings-schema-sha256": "00",
            "packages": [], "go-modules": [],
        });
        serde_json::from_value(image).unwrap()
    }

    #[test]
    fn blocks_of_zeros_are_not_uploaded() {
        const BLOCK: u64 = super::BLOCK as u64;
        // One byte in the first block, the last of the third, and one of a block that the
        // disk ends in.
        let file = disk(GIB + 10, &[0, 3 * BLOCK - 1, GIB + 9]);
        let snapshot = snapshot(file.path()).unwrap();
        assert_eq!(snapshot.volume_size, 2);
        assert_eq!(snapshot.blocks, 2049);
        assert_eq!(snapshot.written_blocks, 3);
    }

    #[test]
    fn what_is_registered() {
        let file = disk(3 * GIB, &[5]);
        let plan = plan(file.path(), &image(), Arch::Aarch64, "orchard", 50).unwrap();
        let image = &plan.register_image;
        assert_eq!(image["Name"], "orchard-aws-k8s-1.36-x86_64-v1.2.3-0123abcd");
        assert_eq!(image["Architecture"], "arm64");
        assert_eq!(image["BootMode"], "uefi");
        assert!(image.get("UefiData").is_none());
        let [root, data] = [0, 1].map(|index| &image["BlockDeviceMappings"][index]);
        assert_eq!(image["RootDeviceName"], root["DeviceName"]);
        assert_eq!(root["Ebs"]["VolumeSize"], 3);
        assert_eq!(data["DeviceName"], "/dev/xvdb");
        assert_eq!(data["Ebs"]["VolumeSize"], 50);
        assert!(data["Ebs"].get("SnapshotId").is_none());
    }

    #[test]
    fn the_second_volume_is_as_large_as_the_images_own() {
        assert_eq!(data_size(disk(GIB + 1, &[]).path()).unwrap(), 2);
        let error = data_size(Path::new("/none/data.img")).unwrap_err();
        assert!(error.to_string().contains("--data-size"), "{error}");
    }

    #[test]
    fn an_image_that_launchers_have_no_room_for_is_refused() {
        let file = disk(4 * GIB + 1, &[]);
        let error = plan(file.path(), &image(), Arch::X86_64, "bulkhead", 20).unwrap_err();
        assert!(error.to_string().contains("5 GiB"), "{error}");
    }
}
